"""How the embedded model's exit heads and tables are made. Run it to make them again:

    python -m selfdraft_viz.lab.embedded heads CORPUS      # trains the exit heads on the train files of CORPUS
    python -m selfdraft_viz.lab.embedded report CORPUS     # agreement, exits and acceptance on its valid files

CORPUS is a folder with `train_KIND.jsonl.xz` and `valid_KIND.jsonl.xz` for the kinds stories, tales and python, each
line an object with a `text`. The embedded model's card says what is in them. Only the train files are trained on. The
settings that ship with it are searched by `selfdraft_viz.lab.embedded_tuning`.
"""

from __future__ import annotations

import json
import lzma
import random
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors.torch import load_file, save_file
from torch import Tensor

from selfdraft_viz.heads import ExitHeads
from selfdraft_viz.lab.corpus import continuations, token_windows
from selfdraft_viz.lab.record import DenseRecord, record
from selfdraft_viz.lab.training import train_exit_heads
from selfdraft_viz.model import Model, embedded_folder, load

HERE = embedded_folder()
KINDS = ("stories", "tales", "python")
EXIT_LAYERS = (2, 3, 4, 6, 8)
PREFIX, WINDOW = 48, 192  # tokens: a prompt, and a prompt with what follows
VOCABULARY = 2048  # tokens that the heads can draft
HELD_OUT = 120  # windows for the agreement during training; the card's figures are from the valid files
THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
WINDOWS = 1500  # of each kind of given text
OWN_WINDOWS = {"stories": 1500, "tales": 1500, "python": 1000}  # of the model's own continuations

app = typer.Typer(help=__doc__, add_completion=False)


def read_documents(path: Path) -> list[str]:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def text_windows(model: Model, corpus: Path, kind: str, split: str, count: int, seed: int = 0) -> Tensor:
    """`count` windows of given text, from places drawn at random: (count, WINDOW)."""
    rng = random.Random(f"{seed} {kind} {split}")
    documents = read_documents(corpus / f"{split}_{kind}.jsonl.xz")
    rng.shuffle(documents)
    enough, size = [], 0
    for document in documents:  # long books are not needed whole
        cut = document if kind == "stories" else document[: max(40_000, 8 * WINDOW * count // max(1, len(documents)))]
        enough.append(cut)
        size += len(cut)
        if size > 12 * WINDOW * count:
            break
    windows = token_windows(model, enough, WINDOW)
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed))
    return windows[order[:count]]


@app.command()
def heads(
    corpus: Path,
    output: Annotated[Path, typer.Option(help="Folder for the heads.")] = HERE,
    work: Annotated[Path, typer.Option(help="Folder for the continuations and the checkpoint.")] = Path(
        "embedded-work"
    ),
    steps: int = 2000,
    learning_rate: float = 4e-3,
    start: Annotated[Path | None, typer.Option(help="Trained heads to go on from.")] = None,
) -> None:
    """Train the exit heads: half on given text, half on the model's own greedy continuations of it, where decoding
    lives."""
    model = load(heads="logit lens")
    work.mkdir(parents=True, exist_ok=True)
    given, own = [], []
    for kind in KINDS:
        windows = text_windows(model, corpus, kind, "train", 2 * WINDOWS)
        given.append(windows[:WINDOWS])
        own.append(
            _own_continuations(model, windows[WINDOWS : WINDOWS + OWN_WINDOWS[kind]], work / f"own_{kind}.safetensors")
        )
    windows = torch.cat([*given, *own])
    windows = windows[torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))]
    kept = len(windows) // 20
    trained = train_exit_heads(
        model,
        windows[kept:],
        validation=windows[: min(kept, HELD_OUT)],
        exit_layers=EXIT_LAYERS,
        steps=steps,
        batch_size=10,
        window=WINDOW,
        vocabulary=VOCABULARY,
        start=None if start is None else ExitHeads.load(start),
        learning_rate=learning_rate,
        checkpoint=work / ("checkpoint.safetensors" if start is None else "checkpoint_from_start.safetensors"),
        checkpoint_every=50,
        autocast=torch.cpu._is_avx512_bf16_supported() or torch.cuda.is_available(),
    )
    for layer, share in trained.metadata["training"]["agreement"].items():
        typer.echo(f"exit {layer}: agreement {share['before']:.3f} -> {share['after']:.3f}")
    typer.echo(f"saved {trained.save(output)}")


@app.command()
def report(
    corpus: Path,
    output: Annotated[Path | None, typer.Option(help="A JSON file to write the figures to.")] = None,
    windows: Annotated[int, typer.Option(help="Windows of each kind of text.")] = 60,
) -> None:
    """Agreement, exits and acceptance per exit on the valid files: logit lens and trained heads, given text and own
    text."""
    trained = load()
    lens = trained.with_heads(ExitHeads(trained.exit_layers))
    rows = []
    for kind in KINDS:
        given = text_windows(trained, corpus, kind, "valid", windows)
        own = continuations(trained, given[:, :PREFIX], WINDOW - PREFIX, batch_size=windows, progress=False)
        for text, (ids, start) in {"given": (given, 0), "own": (own, PREFIX - 1)}.items():
            for model in (lens, trained):
                rows += exit_table(record(model, ids, start=start), model.heads.kind, kind, text)
    for row in rows:
        typer.echo(" ".join(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    if output is not None:
        output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def exit_table(dense: DenseRecord, heads: str, kind: str, text: str) -> list[dict[str, Any]]:
    """Per exit layer: agreement with the final layer over all rows, and the share of rows whose un-annealed confidence
    reaches a threshold with the agreement among those (what their acceptance would be)."""
    confidences = dense.confidences(dict.fromkeys(dense.exit_layers, 1.0))[:, dense.start : -1]
    agrees = dense.agrees[:, dense.start : -1]
    table = []
    for index, layer in enumerate(dense.exit_layers):
        row: dict[str, Any] = {
            "kind": kind,
            "text": text,
            "heads": heads,
            "exit": layer,
            "rows": agrees[..., index].size,
            "agreement": float(agrees[..., index].mean()),
        }
        for threshold in THRESHOLDS:
            exits = confidences[..., index] >= threshold
            row[f"exits at {threshold}"] = float(exits.mean())
            row[f"accepted at {threshold}"] = float(agrees[..., index][exits].mean()) if exits.any() else None
        table.append(row)
    return table


def _own_continuations(model: Model, windows: Tensor, cache: Path) -> Tensor:
    if not cache.is_file():
        made = continuations(model, windows[:, :PREFIX], WINDOW - PREFIX, batch_size=50)
        save_file({"windows": made}, cache)
    return load_file(cache)["windows"]


if __name__ == "__main__":
    app()
