"""Training exit heads: the base model stays frozen, one affine translator an exit layer learns.

The default loss is cross-entropy on the token that the final layer itself would choose (its argmax): then a head's
confidence is, as far as it is calibrated, the chance that its draft is accepted. KL from the final layer's
distribution (the tuned lens, arXiv 2303.08112) and next-token cross-entropy on the text (as SpecBound trains, arXiv
2604.12247) are there too.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from selfdraft_viz.errors import LoadError, SettingsError
from selfdraft_viz.heads import ExitHeads, describe_base
from selfdraft_viz.lab.corpus import own_samples, token_windows
from selfdraft_viz.lab.losses import Goal, cross_entropy_
from selfdraft_viz.layered import LayeredModel
from selfdraft_viz.settings import check_exit_layers
from selfdraft_viz.translators import Affine, LowRank, Translator

if TYPE_CHECKING:
    from selfdraft_viz.model import Model

Loss = Literal["argmax", "kl", "text"]
_LOSSES = ("argmax", "kl", "text")
_LOGITS_AT_ONCE = 2**26  # elements of vocabulary logits held at a time


def train_exit_heads(
    model: Model,
    texts: Iterable[str | Sequence[int]] | Tensor | None = None,
    *,
    exit_layers: Sequence[int] | None = None,
    loss: Loss = "argmax",
    steps: int = 1000,
    batch_size: int = 16,
    window: int = 256,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    warmup: int = 50,
    validation: Iterable[str | Sequence[int]] | Tensor | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 250,
    seed: int = 0,
    vocabulary: int | Tensor | None = None,
    start: ExitHeads | None = None,
    rank: int | None = None,
    autocast: bool | None = None,
    progress: bool = True,
) -> ExitHeads:
    """Train exit heads for `model`, whose own parameters are not touched.

    Args:
        model: what `selfdraft_viz.load` returned.
        texts: documents (text or token ids), or windows of ids (windows, window); None = the model's own samples. Of
            an iterator no more documents are taken than the steps need, so it may be a stream without end.
        exit_layers: layers in 1..L-1; None = the model's exit layers.
        loss: "argmax": cross-entropy on the final layer's argmax; "kl": KL divergence from the final layer's
            distribution; "text": next-token cross-entropy on the text.
        steps: optimizer steps, each on `batch_size` windows of `window` tokens.
        learning_rate: the peak of AdamW's rate: linear warm-up over `warmup` steps, then a cosine down to zero.
        validation: documents or windows kept out of training, for the agreement before and after; None = a twentieth
            of the windows (at least one) is held out.
        checkpoint: a safetensors file to go on from, and to write every `checkpoint_every` steps and when interrupted.
        vocabulary: let the heads draft these token ids only, which makes checks cheaper: a number = that many of the
            most frequent tokens of the training windows; None = all. Where the token to learn is not among them the
            head learns to be unsure.
        start: trained heads to go on from, with their vocabulary; None = the identity, that is the logit lens.
        rank: learn translators I + U V with this many rows in V, 1..width: 2 * rank * width numbers an exit to train
            instead of width * width, and to multiply a row with in every check. None = full rank, or that of `start`.
        autocast: bfloat16 autocast in the forward passes; None = on CUDA only.
        progress: show a progress bar (tqdm.auto).

    Returns:
        `ExitHeads`, in float32. `heads.metadata["training"]` holds the recipe, and per exit layer the `agreement` with
        the final layer's token on the validation windows, `before` (logit lens) and `after`. An interrupt
        (KeyboardInterrupt) ends the training early and returns what was learned so far, and says so in
        `metadata["training"]["interrupted"]`.

    Raises:
        SettingsError: an argument is out of range. PromptError: too little text. LoadError: the checkpoint is of
            another run.
    """
    layered = model.layered
    layers = check_exit_layers(model.exit_layers if exit_layers is None else exit_layers, layered.num_layers)
    recipe = _Recipe(loss, steps, batch_size, window, learning_rate, weight_decay, warmup, seed)
    recipe.check()
    rank = _rank(rank, layered.width, start)
    train, held_out = _data(model, texts, validation, recipe, progress)
    autocast = layered.device.type == "cuda" if autocast is None else autocast
    if start is not None:
        start.check_belongs_to(layered, model.name)
        start, vocabulary = start.select(layers), start.vocabulary
    draftable = _draftable(vocabulary, train, layered)
    unembedder = ExitHeads(layers, vocabulary=draftable)

    translators = _Translators(layers, layered.width, start, rank, seed).to(layered.device)
    optimizer = torch.optim.AdamW(
        translators.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=weight_decay
    )
    state = _Checkpoint(checkpoint, recipe, layers, describe_base(layered)["hash"], draftable, rank)
    if layered.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(layered.device)
    first_step, seconds_before = state.restore(translators, optimizer)
    before = agreement(layered, ExitHeads(layers), held_out, batch_size=batch_size, autocast=autocast)

    step, interrupted, started = first_step, False, time.perf_counter()
    bar = tqdm(total=steps, initial=first_step, desc="exit heads", unit="step", disable=not progress)
    try:
        while step < steps:
            batch = _batch(train, step, recipe).to(layered.device)
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(step)
            losses = _accumulate_gradients(layered, unembedder, translators, batch, loss, autocast)
            nn.utils.clip_grad_norm_(translators.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            bar.update()
            if step % 10 == 0:
                bar.set_postfix({f"exit {layer}": f"{value:.2f}" for layer, value in losses.items()}, refresh=False)
            if step % checkpoint_every == 0:
                state.save(step, seconds_before + time.perf_counter() - started, translators, optimizer)
    except KeyboardInterrupt:
        interrupted = True
    bar.close()
    seconds = seconds_before + time.perf_counter() - started
    state.save(step, seconds, translators, optimizer)

    heads = ExitHeads(layers, translators.learned(), vocabulary=draftable)
    after = agreement(
        layered, heads.to(layered.device, layered.dtype), held_out, batch_size=batch_size, autocast=autocast
    )
    heads.metadata = {
        "base": {"id": model.name, "revision": model.revision, **describe_base(layered)},
        "training": {
            **vars(recipe),
            "optimizer": "AdamW",
            "rank": rank,
            "trained_parameters": sum(parameter.numel() for parameter in translators.parameters()),
            "steps_done": step,
            "tokens": step * batch_size * train.shape[1],
            "train_windows": len(train),
            "vocabulary": layered.vocab_size if draftable is None else len(draftable),
            "interrupted": interrupted,
            "seconds": round(seconds, 1),
            "device": str(layered.device),
            "peak_device_memory": torch.cuda.max_memory_allocated(layered.device)
            if layered.device.type == "cuda"
            else None,
            "agreement": {str(layer): {"before": before[layer], "after": after[layer]} for layer in layers},
            "went_on_from": None if start is None else start.metadata.get("training"),
        },
    }
    return heads


@torch.no_grad()
def agreement(
    layered: LayeredModel, heads: ExitHeads, windows: Tensor, *, batch_size: int = 16, autocast: bool = False
) -> dict[int, float]:
    """Share of positions whose exit token equals the final layer's, by exit layer, over (windows, window) token ids."""
    agreed = dict.fromkeys(heads.exit_layers, 0)
    for batch in windows.split(batch_size):
        with _autocast(layered, autocast):
            hidden_states, final = frozen_pass(layered, batch.to(layered.device), heads.exit_layers)
            rows = _rows_at_once(layered)
            for start in range(0, len(final), rows):
                target = layered.unembed(final[start : start + rows]).argmax(dim=-1)
                for layer in heads.exit_layers:
                    drafted = heads.logits(layered, layer, hidden_states[layer][start : start + rows]).argmax(dim=-1)
                    if heads.vocabulary is not None:
                        drafted = heads.vocabulary.to(drafted.device)[drafted]
                    agreed[layer] += int((drafted == target).sum())
    return {layer: count / windows.numel() for layer, count in agreed.items()}


@torch.no_grad()
def frozen_pass(layered: LayeredModel, batch: Tensor, exit_layers: Sequence[int]) -> tuple[dict[int, Tensor], Tensor]:
    """The base model over (batch, window) token ids.

    Returns:
        By exit layer, and for the last layer after the final norm: (batch * window, width) hidden states.
    """
    taken: dict[int, Tensor] = {}

    def tap(layer: int):
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            taken[layer] = hidden.flatten(0, 1)

        return hook

    with contextlib.ExitStack() as stack:
        for layer in exit_layers:
            stack.callback(layered.layers[layer - 1].register_forward_hook(tap(layer)).remove)
        final = layered.decoder(input_ids=batch, use_cache=False).last_hidden_state
    return taken, final.flatten(0, 1)


def _accumulate_gradients(
    layered: LayeredModel,
    unembedder: ExitHeads,
    translators: _Translators,
    batch: Tensor,
    loss: Loss,
    autocast: bool,
) -> dict[int, float]:
    """Forward and backward over one batch, the vocabulary logits of one exit and some rows at a time. Mean loss by
    exit."""
    with _autocast(layered, autocast):
        hidden_states, final = frozen_pass(layered, batch, translators.layers)
    next_tokens = F.pad(batch[:, 1:], (0, 1), value=-1).flatten()
    counted = next_tokens >= 0 if loss == "text" else torch.ones_like(next_tokens, dtype=torch.bool)
    count = int(counted.sum())
    totals = dict.fromkeys(translators.layers, 0.0)
    rows = _rows_at_once(layered)
    for start in range(0, len(final), rows):
        piece = slice(start, start + rows)
        target, goal = next_tokens[piece], None
        if loss != "text":
            with torch.no_grad(), _autocast(layered, autocast):
                final_logits = layered.unembed(final[piece])
            target = final_logits.argmax(dim=-1)
            if loss == "kl":
                goal = Goal(final_logits, unembedder.vocabulary)
            del final_logits
        for layer in translators.layers:
            with _autocast(layered, autocast):
                moved = translators(layer, hidden_states[layer][piece])
                logits = unembedder.unembed(layered, layered.norm(moved)).float()
            gradient = logits.detach()  # the same memory, which the loss overwrites
            if goal is not None:
                value = goal.divergence_(gradient)
            else:
                value = cross_entropy_(gradient, target, counted[piece], unembedder.vocabulary)
            logits.backward(gradient.div_(count), inputs=list(translators.of(layer)))
            totals[layer] += float(value) / count
            del logits, gradient  # before the next exit's are made
    return totals


def _draftable(vocabulary: int | Tensor | None, train: Tensor, layered: LayeredModel) -> Tensor | None:
    if vocabulary is None or isinstance(vocabulary, Tensor):
        return vocabulary
    if isinstance(vocabulary, bool) or not 2 <= vocabulary <= layered.vocab_size:
        raise SettingsError(
            f"vocabulary={vocabulary!r}: use a number of tokens in 2..{layered.vocab_size}, or None for all"
        )
    counts = train.flatten().bincount(minlength=layered.vocab_size)
    return counts.argsort(descending=True, stable=True)[:vocabulary].sort().values


class _Translators(nn.Module):
    """h + D h + b per exit layer, D and b from zero, the identity, or from heads trained before; D = U V where there is
    a rank, U from zero."""

    def __init__(
        self, layers: tuple[int, ...], width: int, start: ExitHeads | None, rank: int | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.layers = layers
        self.linears: dict[int, nn.Linear | nn.Sequential] = {}
        generator = torch.Generator().manual_seed(seed)
        for layer in layers:
            last = nn.Linear(width if rank is None else rank, width)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            if rank is None:
                self.linears[layer] = last
            else:
                narrow = nn.Linear(width, rank, bias=False)
                nn.init.normal_(narrow.weight, std=width**-0.5, generator=generator)
                self.linears[layer] = nn.Sequential(narrow, last)
            self.add_module(f"layer_{layer}", self.linears[layer])
        if start is not None and start.translators is not None:
            with torch.no_grad():
                for layer in layers:
                    self._take_over(layer, start.translators[layer])

    def forward(self, layer: int, hidden_states: Tensor) -> Tensor:
        return hidden_states + self.linears[layer](hidden_states.float()).to(hidden_states.dtype)

    def of(self, layer: int) -> Iterator[nn.Parameter]:
        return self.linears[layer].parameters()

    def learned(self) -> dict[int, Translator]:
        """By layer the whole matrix I + D, or the factors U and V, and the bias, float32."""
        learned: dict[int, Translator] = {}
        for layer in self.layers:
            *narrow, last = self._parts(layer)
            weight, bias = last.weight.detach(), last.bias.detach()
            identity = torch.eye(len(bias), device=bias.device)
            learned[layer] = (
                LowRank(weight, narrow[0].weight.detach(), bias) if narrow else Affine(identity + weight, bias)
            )
        return learned

    def _take_over(self, layer: int, translator: Translator) -> None:
        *narrow, last = self._parts(layer)
        if narrow and isinstance(translator, LowRank):
            narrow[0].weight.copy_(translator.down)
            last.weight.copy_(translator.up)
        else:
            last.weight.copy_(translator.matrix() - torch.eye(len(translator.bias)))
        last.bias.copy_(translator.bias)

    def _parts(self, layer: int) -> list[nn.Linear]:
        """V, where there is a rank, and the last one, D or U."""
        linear = self.linears[layer]
        return [part for part in linear.modules() if isinstance(part, nn.Linear)]


def _rank(rank: int | None, width: int, start: ExitHeads | None) -> int | None:
    """The rank to learn at: of heads trained before, it is theirs."""
    if rank is not None and (isinstance(rank, bool) or not hasattr(rank, "__index__") or not 1 <= rank <= width):
        raise SettingsError(
            f"rank={rank!r}: use a whole number in 1..{width}, the model's width, or None for full rank"
        )
    if start is None or start.translators is None:
        return rank
    ranks = {one.down.shape[0] if isinstance(one, LowRank) else None for one in start.translators.values()}
    theirs = ranks.pop() if len(ranks) == 1 else None
    if rank is not None and rank != theirs:
        has = "whole matrices" if theirs is None else f"of rank {theirs}"
        raise SettingsError(f"rank={rank}, but the heads to start from are {has}: leave rank out, or start anew")
    return theirs


@dataclass(frozen=True)
class _Recipe:
    loss: str
    steps: int
    batch_size: int
    window: int
    learning_rate: float
    weight_decay: float
    warmup: int
    seed: int

    def check(self) -> None:
        if self.loss not in _LOSSES:
            raise SettingsError(f"loss={self.loss!r}: use one of {', '.join(_LOSSES)}")
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name}={getattr(self, name)!r}: use a whole number of at least 1")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise SettingsError(f"learning_rate={self.learning_rate!r}: use a number above 0, such as 1e-3")

    def rate(self, step: int) -> float:
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


class _Checkpoint:
    """Translators, optimizer state and step in one safetensors file, so that a run can go on where it stopped."""

    def __init__(
        self,
        path: str | Path | None,
        recipe: _Recipe,
        layers: tuple[int, ...],
        base_hash: str,
        vocabulary: Tensor | None,
        rank: int | None,
    ) -> None:
        self._path = None if path is None else Path(path)
        size = None if vocabulary is None else len(vocabulary)
        run = {**vars(recipe), "layers": list(layers), "base": base_hash, "vocabulary": size}
        if rank is not None:
            run["rank"] = rank
        self._run = json.dumps(run, sort_keys=True)

    def restore(self, translators: _Translators, optimizer: torch.optim.AdamW) -> tuple[int, float]:
        """Load the file if there is one. Returns the steps already done, and the seconds they took."""
        if self._path is None or not self._path.is_file():
            return 0, 0.0
        with safe_open(self._path, framework="pt") as opened:
            header = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
        if header.get("run") != self._run:
            raise LoadError(
                f"the checkpoint {self._path} is of another training run ({header.get('run')}), "
                f"not of this one ({self._run}): give the same arguments, or another path"
            )
        step = int(header["step"])
        with torch.no_grad():
            for name, parameter in translators.named_parameters():
                parameter.copy_(tensors[name])
                if step:
                    optimizer.state[parameter] = {
                        "step": torch.tensor(float(step)),
                        "exp_avg": tensors[f"{name}.exp_avg"].to(parameter.device),
                        "exp_avg_sq": tensors[f"{name}.exp_avg_sq"].to(parameter.device),
                    }
        return step, float(header["seconds"])

    def save(self, step: int, seconds: float, translators: _Translators, optimizer: torch.optim.AdamW) -> None:
        if self._path is None:
            return
        tensors = {}
        for name, parameter in translators.named_parameters():
            tensors[name] = parameter.detach().cpu().contiguous()
            for moment in ("exp_avg", "exp_avg_sq"):
                value = optimizer.state.get(parameter, {}).get(moment)
                tensors[f"{name}.{moment}"] = (torch.zeros_like(parameter) if value is None else value).detach().cpu()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".partial")
        save_file(tensors, temporary, metadata={"run": self._run, "step": str(step), "seconds": str(seconds)})
        temporary.replace(self._path)


def _data(model: Model, texts: Any, validation: Any, recipe: _Recipe, progress: bool) -> tuple[Tensor, Tensor]:
    def windows(source: Any) -> Tensor:
        if isinstance(source, Tensor):
            return source
        needed = recipe.steps * recipe.batch_size
        endless = isinstance(source, Iterator)
        return token_windows(model, source, recipe.window, needed + needed // 19 + 1 if endless else None)

    if texts is None:
        wanted = min(recipe.steps * recipe.batch_size, 2048)
        train = own_samples(model, wanted * recipe.window, recipe.window, seed=recipe.seed, progress=progress)
    else:
        train = windows(texts)
    if validation is not None:
        return train, windows(validation)
    kept = max(1, len(train) // 20)
    if len(train) <= kept:
        raise SettingsError(
            f"the texts fill {len(train)} window of {recipe.window} tokens, too few to keep one for validation: "
            "give more text, a smaller window, or validation="
        )
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(recipe.seed))
    return train[order[kept:]], train[order[:kept]]


def _batch(train: Tensor, step: int, recipe: _Recipe) -> Tensor:
    """The windows of a step: every epoch in an order of its own, the same whenever the run is repeated or resumed."""
    per_epoch = max(1, len(train) // recipe.batch_size)
    epoch, index = divmod(step, per_epoch)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(recipe.seed + 1 + epoch))
    return train[order[index * recipe.batch_size : (index + 1) * recipe.batch_size]]


def _rows_at_once(layered: LayeredModel) -> int:
    return max(16, _LOGITS_AT_ONCE // layered.vocab_size)


def _autocast(layered: LayeredModel, enabled: bool) -> torch.autocast:
    return torch.autocast(layered.device.type, dtype=torch.bfloat16, enabled=enabled)
