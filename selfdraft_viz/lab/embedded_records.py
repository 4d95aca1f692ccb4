"""How the shipped records of the embedded model are made. Run it to make them again:

    python -m selfdraft_viz.lab.embedded_records heads CORPUS WORK      # trains two sets of heads that differ in loss
    python -m selfdraft_viz.lab.embedded_records records CORPUS WORK    # records them, and the logit lens

CORPUS is as for `selfdraft_viz.lab.embedded`. The heads are trained on the train files, the records are of the valid
files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from selfdraft_viz.heads import ExitHeads
from selfdraft_viz.lab.embedded import EXIT_LAYERS, KINDS, VOCABULARY, WINDOW, text_windows
from selfdraft_viz.lab.recording import record_continuations, record_text, shipped_folder
from selfdraft_viz.lab.training import Loss, train_exit_heads
from selfdraft_viz.model import load

LOSSES: dict[str, Loss] = {"next token": "text", "argmax": "argmax"}
BATCH, HELD_OUT = 10, 60  # windows
TEXTS = 10  # of each kind in a record
LENGTH, PROMPT = 96, 48  # tokens of given text and of a continuation, and of the prompt of that

app = typer.Typer(help=__doc__, add_completion=False)


@app.command()
def heads(
    corpus: Path,
    work: Annotated[Path, typer.Argument(help="Folder for the heads.")],
    steps: int = 360,
) -> None:
    """Train heads on the text's next token, as SpecBound does, and heads on the final layer's argmax: the same windows
    of given text in the same order, the same number of steps, the same tokens to draft."""
    model = load(heads="logit lens")
    each = steps * BATCH // len(KINDS) + HELD_OUT // len(KINDS)
    windows = torch.cat([text_windows(model, corpus, kind, "train", each, seed=2) for kind in KINDS])
    windows = windows[torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))]
    work.mkdir(parents=True, exist_ok=True)
    for name, loss in LOSSES.items():
        trained = train_exit_heads(
            model,
            windows[HELD_OUT:],
            validation=windows[:HELD_OUT],
            exit_layers=EXIT_LAYERS,
            loss=loss,
            steps=steps,
            batch_size=BATCH,
            window=WINDOW,
            vocabulary=VOCABULARY,
            learning_rate=4e-3,
            warmup=20,
            checkpoint=work / f"{loss}.checkpoint.safetensors",
            autocast=torch.cpu._is_avx512_bf16_supported() or torch.cuda.is_available(),
        )
        typer.echo(f"{name}: saved {trained.save(work / f'{loss}.safetensors')}")


@app.command()
def records(
    corpus: Path,
    work: Annotated[Path, typer.Argument(help="Folder with the heads that `heads` made.")],
    output: Annotated[Path | None, typer.Option(help="Folder for the records; default: the package's.")] = None,
) -> None:
    """Record the valid files, as given and as the model goes on from them, through all three sets of heads."""
    output = shipped_folder() if output is None else output
    output.mkdir(parents=True, exist_ok=True)
    lens = load(heads="logit lens", exit_layers=EXIT_LAYERS)
    prompts = {kind: text_windows(lens, corpus, kind, "valid", TEXTS) for kind in KINDS}
    sets = {"logit lens": lens.heads, **{n: ExitHeads.load(work / f"{loss}.safetensors") for n, loss in LOSSES.items()}}
    for name, chosen in sets.items():
        model = lens.with_heads(chosen)
        made = {
            "given": record_text(model, prompts, window=LENGTH),
            "own": record_continuations(model, prompts, prompt_tokens=PROMPT, max_new_tokens=LENGTH),
        }
        for text, dense in made.items():
            path = dense.save(output / f"{name.replace(' ', '-')}-{text}.parquet")
            typer.echo(f"{path.name}: {dense.rows} rows, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    app()
