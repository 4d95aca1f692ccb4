"""How the embedded model's exit heads, tables and preset are made. Run it to make them again:

    python -m selfdraft_viz.lab.embedded heads CORPUS      # trains the exit heads on the train files of CORPUS
    python -m selfdraft_viz.lab.embedded report CORPUS     # agreement, acceptance and calibration on its valid files

CORPUS is a folder with `train_KIND.jsonl.xz` and `valid_KIND.jsonl.xz` for the kinds stories, tales and python, each line an
object with a `text`. The embedded model's card says what is in them. Only the train files are trained on.
"""

from __future__ import annotations

import json
import lzma
import random
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import load_file, save_file
from torch import Tensor

from selfdraft_viz.lab.corpus import continuations, token_windows
from selfdraft_viz.lab.training import train_exit_heads
from selfdraft_viz.model import Model, embedded_folder, load

KINDS = ("stories", "tales", "python")
EXIT_LAYERS = (2, 3, 4, 6, 8)
PREFIX, WINDOW = 48, 192  # tokens: a prompt, and a prompt with what follows
VOCABULARY = 2048  # tokens that the heads can draft
WINDOWS = 1500  # of each kind, of given text and of the model's own continuations

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
    output: Annotated[Path, typer.Option(help="Folder for the heads.")] = embedded_folder(),
    work: Annotated[Path, typer.Option(help="Folder for the continuations and the checkpoint.")] = Path(
        "embedded-work"
    ),
    steps: int = 1000,
    learning_rate: float = 2e-3,
) -> None:
    """Train the exit heads: half on given text, half on the model's own greedy continuations of it, where decoding lives."""
    model = load(heads="logit lens")
    work.mkdir(parents=True, exist_ok=True)
    given, own = [], []
    for kind in KINDS:
        windows = text_windows(model, corpus, kind, "train", 2 * WINDOWS)
        given.append(windows[:WINDOWS])
        own.append(_own_continuations(model, windows[WINDOWS:], work / f"own_{kind}.safetensors"))
    trained = train_exit_heads(
        model,
        torch.cat([*given, *own]),
        exit_layers=EXIT_LAYERS,
        steps=steps,
        batch_size=21,
        window=WINDOW,
        vocabulary=VOCABULARY,
        learning_rate=learning_rate,
        checkpoint=work / "checkpoint.safetensors",
        checkpoint_every=50,
        autocast=torch.cpu._is_avx512_bf16_supported() or torch.cuda.is_available(),
    )
    for layer, share in trained.metadata["training"]["agreement"].items():
        typer.echo(f"exit {layer}: agreement {share['before']:.3f} -> {share['after']:.3f}")
    typer.echo(f"saved {trained.save(output)}")


def _own_continuations(model: Model, windows: Tensor, cache: Path) -> Tensor:
    if not cache.is_file():
        made = continuations(model, windows[:, :PREFIX], WINDOW - PREFIX, batch_size=250)
        save_file({"windows": made}, cache)
    return load_file(cache)["windows"]


if __name__ == "__main__":
    app()
