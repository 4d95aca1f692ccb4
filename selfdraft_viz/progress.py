"""Progress of a model that loads, for who shows it by other means than a bar in a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from tqdm.std import tqdm

Progress: TypeAlias = Callable[[str, float, float | None], None]
"""Called with what is being done, how far it is, and of how much (None = not known), in bytes or in pieces."""


def reporter(progress: Progress) -> type[tqdm]:
    """A class of bars that draw nothing and tell `progress` instead."""

    class Reporter(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)  # what the hub's own bars take besides
            kwargs.update(file=io.StringIO(), disable=False, dynamic_ncols=False)
            super().__init__(*args, **kwargs)

        def display(self, *args: Any, **kwargs: Any) -> bool:
            progress(str(self.desc or "").rstrip(": "), float(self.n), None if not self.total else float(self.total))
            return True

    return Reporter


@contextmanager
def reporting(progress: Progress | None) -> Iterator[None]:
    """While it is open, transformers' bars tell `progress`."""
    from transformers.utils import logging

    hook = getattr(logging, "set_tqdm_hook", None)
    if progress is None or hook is None:
        yield
        return
    bar = reporter(progress)
    before = hook(lambda factory, args, kwargs: bar(*args, **kwargs))
    try:
        yield
    finally:
        hook(before)


def fetch(source: str, revision: str | None, progress: Progress) -> None:
    """Bring a model from the hub into its cache, telling how far it is. What is there already is not fetched again."""
    from huggingface_hub import snapshot_download

    snapshot_download(
        source,
        revision=revision,
        allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"],
        ignore_patterns=["*/*"],
        tqdm_class=reporter(progress),
    )
