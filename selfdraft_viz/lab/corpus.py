"""Text as windows of token ids, and the model's own continuations of it."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from selfdraft_viz.errors import PromptError
from selfdraft_viz.layered.staircase import additive_mask

if TYPE_CHECKING:
    from selfdraft_viz.model import Model


def token_windows(model: Model, texts: Iterable[str | Sequence[int]], window: int, most: int | None = None) -> Tensor:
    """Documents, joined end to end and cut into windows: (windows, window) int64 on the CPU.

    Documents are taken one by one, and of each only its token ids are kept.

    Args:
        model: its tokenizer turns text into ids; documents can also be sequences of ids.
        texts: documents.
        window: tokens in a window, 2..context length.
        most: stop reading at so many windows, so that `texts` can be a stream without end; None = read them all.

    Raises:
        PromptError: a window does not fit into the context, or the texts do not fill one window.
    """
    if not 2 <= window <= model.context_length:
        raise PromptError(f"window={window}: use 2..{model.context_length} tokens, the model's context")
    ids = array("i")
    for text in texts:
        if isinstance(text, str) and not text:
            continue
        ids.extend(model.encode(text))
        if most is not None and len(ids) >= most * window:
            break
    count = len(ids) // window if most is None else min(most, len(ids) // window)
    if count == 0:
        raise PromptError(
            f"the texts have {len(ids)} tokens, less than one window of {window}: give more, or a smaller window"
        )
    return torch.frombuffer(ids, dtype=torch.int32, count=count * window).long().view(count, window)


@torch.no_grad()
def continuations(
    model: Model,
    prompts: Tensor,
    max_new_tokens: int,
    *,
    temperature: float | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
) -> Tensor:
    """The model's own continuations, many at once: what decoding itself will meet.

    Args:
        model: whose layers run, over keys and values allocated once a batch; end-of-sequence tokens are no end here.
        prompts: (rows, prompt tokens), all of one length.
        max_new_tokens: how many tokens to add to each; prompt and new ones must fit into the context.
        temperature: None = greedy, else sampling.
        batch_size: rows generated together.
        seed: for sampling.
        progress: show a progress bar.

    Returns:
        (rows, prompt tokens + max_new_tokens) on the CPU.

    Raises:
        PromptError: they do not fit into the context.
    """
    length = prompts.shape[1] + max_new_tokens
    if length > model.context_length:
        raise PromptError(
            f"{prompts.shape[1]} prompt tokens and {max_new_tokens} new ones go past the model's context of "
            f"{model.context_length}: use at most {model.context_length - prompts.shape[1]} new tokens"
        )
    generator = torch.Generator(model.device).manual_seed(seed)
    done = []
    bar = tqdm(total=len(prompts), desc="continuations", unit="row", disable=not progress)
    for batch in prompts.split(batch_size):
        token_ids = new = batch.to(model.device)
        cache = _BatchCache(length)
        while token_ids.shape[1] < length:
            logits = _next_logits(model, new, cache)
            if temperature is None:
                new = logits.argmax(dim=-1, keepdim=True)
            else:
                new = (logits.float() / temperature).softmax(dim=-1).multinomial(1, generator=generator)
            token_ids = torch.cat([token_ids, new], dim=1)
        done.append(token_ids.cpu())
        bar.update(len(batch))
    bar.close()
    return torch.cat(done)


def _next_logits(model: Model, new: Tensor, cache: _BatchCache) -> Tensor:
    """(rows, vocabulary) logits after the (rows, tokens) `new` ones, which all come after what is in the cache."""
    layered, family = model.layered, model.layered.family
    cache.start, cache.stop = cache.stop, cache.stop + new.shape[1]
    positions = torch.arange(cache.start, cache.stop, device=new.device)[None]
    hidden_states = family.embed(layered.decoder, new, positions)
    keys = torch.arange(cache.stop, device=new.device)
    masks = {window: additive_mask(hidden_states, window, positions[0], keys) for window in set(layered.windows)}
    ropes = {kind: family.rope(layered.decoder, hidden_states, positions, kind) for kind in set(layered.layer_types)}
    for layer, window, kind in zip(layered.layers, layered.windows, layered.layer_types, strict=True):
        hidden_states = family.call(layer, hidden_states, masks[window], positions, ropes[kind], cache)
    return layered.unembed(layered.norm(hidden_states[:, -1]))


class _BatchCache:
    """Keys and values of many rows at once, all equally long: (rows, heads, length, head width) a layer."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._stored: dict[int, tuple[Tensor, Tensor]] = {}
        self.start = self.stop = 0

    def update(self, keys: Tensor, values: Tensor, layer_index: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if layer_index not in self._stored:
            self._stored[layer_index] = (self._room_for(keys), self._room_for(values))
        stored_keys, stored_values = self._stored[layer_index]
        stored_keys[:, :, self.start : self.stop] = keys
        stored_values[:, :, self.start : self.stop] = values
        return stored_keys[:, :, : self.stop], stored_values[:, :, : self.stop]

    def _room_for(self, new: Tensor) -> Tensor:
        return new.new_empty((*new.shape[:2], self._length, new.shape[3]))


def own_samples(model: Model, tokens: int, window: int, *, seed: int = 0, progress: bool = True) -> Tensor:
    """About `tokens` tokens that the model says of its own accord, sampled at temperature 1: (windows, window).

    They start from the begin-of-sequence token, or, in a model without one, from tokens drawn evenly.
    """
    count = max(1, tokens // window)
    start_id = model.layered.config.bos_token_id
    if start_id is None:
        generator = torch.Generator().manual_seed(seed)
        starts = torch.randint(model.layered.vocab_size, (count, 1), generator=generator)
    else:
        starts = torch.full((count, 1), int(start_id))
    return continuations(model, starts, window - 1, temperature=1.0, seed=seed, progress=progress)
