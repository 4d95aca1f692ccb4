"""`selfdraft-viz train-heads`: exit heads for a model of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfdraft_viz.cli import options as opt
from selfdraft_viz.cli.terminal import complain, console, printable, show_table
from selfdraft_viz.errors import SettingsError


def train_heads(
    output: Annotated[
        Path, typer.Argument(help="Folder, or .safetensors file, for the heads; --heads takes it afterwards.")
    ],
    texts: Annotated[
        list[Path] | None,
        typer.Option(help="A .txt, .jsonl or .jsonl.xz file or a folder; repeatable. None: the model's own samples."),
    ] = None,
    validation: Annotated[
        list[Path] | None, typer.Option(help="Texts kept out of training; default: a twentieth of the texts.")
    ] = None,
    model: opt.ModelOption = None,
    revision: opt.RevisionOption = None,
    device: opt.DeviceOption = "auto",
    dtype: opt.DtypeOption = None,
    exit_layers: Annotated[
        str | None, typer.Option(help="Layers to have exits at, such as 2,4,6; default: the model's exit layers.")
    ] = None,
    loss: Annotated[
        str, typer.Option(help="argmax: the final layer's token; kl: its distribution; text: the next token.")
    ] = "argmax",
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = 1000,
    batch_size: Annotated[int, typer.Option(help="Windows in a step.")] = 16,
    window: Annotated[int, typer.Option(help="Tokens in a window.")] = 256,
    learning_rate: Annotated[float, typer.Option(help="Peak of AdamW's rate.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option(help="AdamW's.")] = 0.0,
    warmup: Annotated[int, typer.Option(help="Steps in which the rate rises.")] = 50,
    vocabulary: Annotated[
        int | None,
        typer.Option(help="Draft only so many of the most frequent tokens: cheaper checks. Default: all tokens."),
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Low-rank translators of this rank; default: full rank.")] = None,
    start: Annotated[Path | None, typer.Option(help="Trained heads to go on from; default: the logit lens.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File to go on from, and to write when interrupted and every so often.")
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between two checkpoints.")] = 250,
    seed: Annotated[int, typer.Option(help="Of the order of the texts, and of own samples.")] = 0,
) -> None:
    """Train exit heads; the model itself stays as it is. Ctrl-C ends the training early and keeps what was learned."""
    if not (output.suffix == ".safetensors" or output.is_dir() or not output.exists()):
        raise SettingsError(f"{output} is a file: give a folder, or a name that ends in .safetensors")
    from selfdraft_viz.lab.texts import read_texts

    def documents(paths: list[Path] | None) -> list[str] | None:
        return [text for path in paths for text in read_texts(path)] if paths else None

    train, held_out = documents(texts), documents(validation)
    layers = None if exit_layers is None else opt.whole_numbers("--exit-layers", exit_layers)
    loaded = opt.load_model(model, device=device, dtype=dtype, revision=revision)
    from selfdraft_viz.heads import ExitHeads
    from selfdraft_viz.lab.heads_table import heads_table
    from selfdraft_viz.lab.training import train_exit_heads

    heads = train_exit_heads(
        loaded,
        train,
        exit_layers=layers,
        loss=loss,  # type: ignore[arg-type]
        steps=steps,
        batch_size=batch_size,
        window=window,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        vocabulary=vocabulary,
        rank=rank,
        start=None if start is None else ExitHeads.load(start),
        validation=held_out,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        seed=seed,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    saved = heads.save(output)
    out = console()
    table = heads_table(loaded, heads)
    show_table(
        out,
        "agreement with the final layer, on text kept out of training; time of one check",
        ["exit layer", "logit lens", "trained", "check, ms", "in layer passes"],
        [
            (
                str(row["exit_layer"]),
                f"{row['before']:.1%}",
                f"{row['after']:.1%}",
                f"{row['check_ms']:.2f}",
                f"{row['check_layers']:.1f}",
            )
            for row in table.to_dict("records")
        ],
    )
    training = heads.metadata["training"]
    speed = training["tokens"] / max(1e-9, training["seconds"])
    memory = training["peak_device_memory"]
    out.print(
        f"{training['trained_parameters']:,} parameters, {training['tokens']:,} tokens in {training['seconds']:.0f} s "
        f"({speed:,.0f} tokens a second)" + ("" if memory is None else f", at most {memory / 2**30:.2f} GiB on the GPU")
    )
    out.print(f"saved: {printable(str(saved))}", soft_wrap=True)
    if heads.metadata["training"]["interrupted"]:
        complain(f"interrupted after {heads.metadata['training']['steps_done']} of {steps} steps")
        raise typer.Exit(130)
