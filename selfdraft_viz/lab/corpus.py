"""Text as windows of token ids, and the model's own continuations of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm.auto import tqdm

from selfdraft_viz.errors import PromptError

if TYPE_CHECKING:
    from selfdraft_viz.model import Model


def token_windows(model: Model, texts: Iterable[str | Sequence[int]], window: int) -> Tensor:
    """Documents, joined end to end and cut into windows: (windows, window) int64 on the CPU.

    Args:
        model: its tokenizer turns text into ids; documents can also be sequences of ids.
        texts: documents.
        window: tokens in a window, 2..context length.

    Raises:
        PromptError: a window does not fit into the context, or the texts do not fill one window.
    """
    if not 2 <= window <= model.context_length:
        raise PromptError(f"window={window}: use 2..{model.context_length} tokens, the model's context")
    ids: list[int] = []
    for text in texts:
        if isinstance(text, str) and not text:
            continue
        ids.extend(model.encode(text))
    count = len(ids) // window
    if count == 0:
        raise PromptError(
            f"the texts have {len(ids)} tokens, less than one window of {window}: give more, or a smaller window"
        )
    return torch.tensor(ids[: count * window], dtype=torch.int64).view(count, window)


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
        model: whose base model generates, by `transformers.generate`, end-of-sequence tokens ignored.
        prompts: (rows, prompt tokens), all of one length.
        max_new_tokens: how many tokens to add to each.
        temperature: None = greedy, else sampling.
        batch_size: rows generated together.
        seed: for sampling.
        progress: show a progress bar.

    Returns:
        (rows, prompt tokens + max_new_tokens) on the CPU.
    """
    options: dict = {"do_sample": False}
    if temperature is not None:
        torch.manual_seed(seed)
        options = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    rows = []
    bar = tqdm(total=len(prompts), desc="continuations", unit="row", disable=not progress)
    for batch in prompts.split(batch_size):
        batch = batch.to(model.device)
        output = model.base.generate(
            batch,
            attention_mask=torch.ones_like(batch),
            max_new_tokens=max_new_tokens,
            min_new_tokens=max_new_tokens,
            pad_token_id=min(model.end_of_sequence_ids, default=0),
            **options,
        )
        rows.append(output.cpu())
        bar.update(len(batch))
    bar.close()
    return torch.cat(rows)


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
