"""Train a base model from scratch on the spot, to bench one whose exits are real:

    python -m selfdraft_viz.lab.base_training CORPUS OUTPUT --minutes 20

CORPUS is a folder of text as `selfdraft_viz.lab.embedded` reads it; OUTPUT becomes a model folder that
`selfdraft_viz.load` reads. A run that was stopped goes on where it was from its checkpoint, time counted. The defaults
are a 24-layer Llama of 0.5 B parameters, for one GPU in bfloat16. Then train its heads and bench it:

    selfdraft-viz train-heads OUTPUT --model OUTPUT --texts CORPUS --exit-layers 4,8,12
    selfdraft-viz bench --model OUTPUT --device cuda --floor
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from selfdraft_viz.errors import SettingsError
from selfdraft_viz.lab.embedded import KINDS, read_documents
from selfdraft_viz.model import embedded_folder

_CHECKPOINT = "training.pt"
_WARM_UP = 0.02  # of the time

app = typer.Typer(help=__doc__, add_completion=False)


@app.command()
def train(
    corpus: Path,
    output: Path,
    minutes: Annotated[float, typer.Option(help="Training time in all, over every leg; compiling is in it.")] = 20.0,
    layers: int = 24,
    width: int = 1280,
    heads: int = 20,
    kv_heads: int = 5,
    mlp: int = 3456,
    batch: Annotated[int, typer.Option(help="Windows of a step.")] = 32,
    window: Annotated[int, typer.Option(help="Tokens of a window.")] = 512,
    learning_rate: Annotated[float, typer.Option(help="Its peak; then cosine to a tenth over the time.")] = 4e-4,
    checkpoint_every: Annotated[float, typer.Option(help="Minutes between checkpoints.")] = 3.0,
    characters: Annotated[int | None, typer.Option(help="Of each kind of text at most; default: all.")] = None,
    device: str = "auto",
    seed: int = 0,
) -> None:
    """Train on the train files of CORPUS, and save a model folder."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    if minutes <= 0 or window < 2 or batch < 1:
        raise SettingsError(f"minutes={minutes}, window={window}, batch={batch}: use positive numbers, window over 1")
    target = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    output.mkdir(parents=True, exist_ok=True)
    tokenizer: Any = AutoTokenizer.from_pretrained(embedded_folder())
    tokens = corpus_tokens(corpus, tokenizer, characters)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    model: Any = LlamaForCausalLM(config)
    model.to(target)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.1, fused=target.startswith("cuda")
    )
    spent, step = _resume(output / _CHECKPOINT, model, optimizer)
    count = sum(parameter.numel() for parameter in model.parameters())
    typer.echo(f"{count / 1e6:.0f} M parameters, {len(tokens) / 1e6:.1f} M tokens, from step {step} at {spent:.0f} s")
    generator = torch.Generator().manual_seed(seed + step)
    started, saved = time.perf_counter() - spent, spent
    while (spent := time.perf_counter() - started) < 60 * minutes:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * rate_at(spent / (60 * minutes))
        loss = _step(model, optimizer, _windows(tokens, batch, window, generator).to(target))
        step += 1
        if step % 20 == 0 or step == 1:
            typer.echo(
                f"step {step}, {spent:.0f} s: loss {loss.item():.3f}, {step * batch * window / 1e6:.1f} M tokens"
            )
        if spent - saved > 60 * checkpoint_every:
            saved = _save(output / _CHECKPOINT, model, optimizer, spent, step)
    _save(output / _CHECKPOINT, model, optimizer, 60 * minutes, step)
    model.to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)
    typer.echo(f"saved {output}")


def corpus_tokens(corpus: Path, tokenizer: Any, characters: int | None) -> Tensor:
    """All train files of a corpus, document after document, as one row of int16 or int32 token ids."""
    ids: list[Tensor] = []
    for kind in KINDS:
        left = characters
        documents = []
        for document in read_documents(corpus / f"train_{kind}.jsonl.xz"):
            documents.append(document if left is None else document[:left])
            if left is not None and (left := left - len(document)) <= 0:
                break
        ids += [torch.tensor(row, dtype=torch.int32) for row in tokenizer(documents)["input_ids"]]
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0)).tolist()
    return torch.cat([ids[index] for index in order])


def rate_at(share: float) -> float:
    """The learning rate, as a part of its peak, when `share` of the time has gone."""
    if share < _WARM_UP:
        return max(share / _WARM_UP, 0.01)
    return 0.55 + 0.45 * math.cos(math.pi * min(1.0, (share - _WARM_UP) / (1 - _WARM_UP)))


def _windows(tokens: Tensor, batch: int, window: int, generator: torch.Generator) -> Tensor:
    if len(tokens) <= window:
        raise SettingsError(f"the corpus has {len(tokens)} tokens: give more than a window of {window}")
    starts = torch.randint(len(tokens) - window, (batch, 1), generator=generator)
    return tokens[starts + torch.arange(window)].long()


def _step(model: Any, optimizer: torch.optim.Optimizer, windows: Tensor) -> Tensor:
    with torch.autocast(windows.device.type, dtype=torch.bfloat16):
        loss: Tensor = model(input_ids=windows, labels=windows, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def _resume(path: Path, model: Any, optimizer: torch.optim.Optimizer) -> tuple[float, int]:
    if not path.is_file():
        return 0.0, 0
    saved = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return saved["seconds"], saved["step"]


def _save(path: Path, model: Any, optimizer: torch.optim.Optimizer, seconds: float, step: int) -> float:
    """Written beside, then moved over the last one: a run stopped while it saves loses nothing."""
    beside = path.with_suffix(".part")
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "seconds": seconds, "step": step}
    torch.save(state, beside)
    beside.replace(path)
    return seconds


if __name__ == "__main__":
    app()
