"""Dense records of given text, of the model's own continuations, and of a decode that was made: one call each.

The two kinds differ. Over *given* text every row has words before it that somebody else wrote; decoding meets what the
model itself has written, which is easier for it, so that its exits agree more often and are surer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from selfdraft_viz.errors import PromptError, SettingsError
from selfdraft_viz.lab.corpus import continuations, token_windows
from selfdraft_viz.lab.record import DenseRecord, record

if TYPE_CHECKING:
    from selfdraft_viz.model import Model
    from selfdraft_viz.trace import Trace

Documents: TypeAlias = Iterable[str | Sequence[int]] | Tensor
"""Documents as text or token ids, or windows of token ids that are cut already, (windows, window)."""

SHIPPED_HEADS = ("logit lens", "next token", "argmax")
SHIPPED_TEXTS = ("given", "own")


def record_text(
    model: Model,
    texts: Documents | Mapping[str, Documents],
    *,
    window: int = 128,
    count: int | None = None,
    batch_size: int = 8,
    progress: bool = True,
) -> DenseRecord:
    """A dense record over given text, read by the model window by window (teacher forced).

    Args:
        model: with the exit heads to be recorded.
        texts: documents, or documents by kind.
        window: tokens in a window.
        count: the most windows, of each kind, spread evenly over the documents; None = all.
        batch_size: windows in a pass.
        progress: show a progress bar.

    Raises:
        PromptError: a window does not fit into the context, or the texts do not fill one.
    """
    windows, kinds = _windows(model, texts, window, count)
    return record(model, windows, batch_size=batch_size, kinds=kinds, source={"text": "given"}, progress=progress)


def record_continuations(
    model: Model,
    texts: Documents | Mapping[str, Documents],
    *,
    prompt_tokens: int = 48,
    max_new_tokens: int = 96,
    count: int | None = None,
    batch_size: int = 8,
    progress: bool = True,
) -> DenseRecord:
    """A dense record over the model's own greedy continuations: the rows that decoding meets.

    Args:
        model: with the exit heads to be recorded; its base writes the continuations.
        texts: documents that the prompts are cut from, or documents by kind.
        prompt_tokens, max_new_tokens: tokens of a prompt, and of its continuation. An end-of-sequence token is no end.
        count: the most prompts, of each kind, spread evenly over the documents; None = all.
        batch_size: texts in a pass.
        progress: show progress bars.

    Returns:
        A record whose `start` is `prompt_tokens`, with `max_new_tokens - 1` rows a text after it: those that a decode
        of `max_new_tokens` makes after the prefill.

    Raises:
        PromptError: they do not fit into the context, or the texts do not fill one prompt.
    """
    prompts, kinds = _windows(model, texts, prompt_tokens, count)
    own = continuations(model, prompts, max_new_tokens, batch_size=batch_size, progress=progress)
    return record(
        model, own[:, :-1], start=prompt_tokens, batch_size=batch_size, kinds=kinds, source={"text": "own"},
        progress=progress,
    )  # fmt: skip


def record_trace(model: Model, trace: Trace) -> DenseRecord:
    """A dense record of the text of one decode; its `start` is the number of prompt tokens.

    Raises:
        PromptError: the trace has fewer than two new tokens.
    """
    if len(trace.token_ids) < 2:
        raise PromptError(f"the trace has {len(trace.token_ids)} new tokens: a record needs at least 2")
    token_ids = torch.tensor([[*trace.prompt_ids, *trace.token_ids[:-1]]])
    return record(model, token_ids, start=len(trace.prompt_ids), source={"text": "decode"})


def shipped_record(heads: str = "logit lens", text: str = "own") -> DenseRecord:
    """A small record of the embedded model that comes with the package: documents it was never trained on, of the
    kinds stories, tales and python.

    Args:
        heads: "logit lens"; "next token": heads trained on the text's next token, as SpecBound's are; "argmax": heads
            trained alike, but on the final layer's own choice.
        text: "given", or the model's "own" greedy continuations.

    Raises:
        SettingsError: there is none of that name.
    """
    if heads not in SHIPPED_HEADS or text not in SHIPPED_TEXTS:
        raise SettingsError(
            f"no shipped record of {heads!r}, {text!r}: heads are {', '.join(map(repr, SHIPPED_HEADS))}, texts "
            f"{', '.join(map(repr, SHIPPED_TEXTS))}"
        )
    return DenseRecord.load(shipped_folder() / f"{heads.replace(' ', '-')}-{text}.parquet")


def shipped_folder() -> Path:
    return Path(str(files("selfdraft_viz"))) / "assets" / "records"


def _windows(
    model: Model, texts: Documents | Mapping[str, Documents], window: int, count: int | None
) -> tuple[Tensor, list[str]]:
    if count is not None and count < 1:
        raise SettingsError(f"count={count}: use at least 1 text, or None for all")
    by_kind = texts if isinstance(texts, Mapping) else {"": texts}
    parts, kinds = [], []
    for kind, documents in by_kind.items():
        if isinstance(documents, str):
            raise PromptError("texts is one string: give a list of documents, or documents by kind")
        cut = documents if isinstance(documents, Tensor) else token_windows(model, documents, window)
        if cut.ndim != 2 or cut.shape[1] < window:
            raise PromptError(f"windows of shape {tuple(cut.shape)}: give (windows, at least {window}) token ids")
        cut = cut[:, :window]
        if count is not None and len(cut) > count:
            cut = cut[torch.linspace(0, len(cut) - 1, count).long()]
        parts.append(cut)
        kinds += [kind] * len(cut)
    return torch.cat(parts), kinds if isinstance(texts, Mapping) else []
