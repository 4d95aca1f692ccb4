"""What the explorer needs to know of the kernel around it; without one, nothing is asked."""

from __future__ import annotations

import time
from typing import Any


class LoopProbe:
    """Says whether the kernel's event loop turns, and so whether messages from the front end can arrive.

    While a cell runs it does not, and then silence of the front end means nothing.
    """

    _PATIENCE_SECONDS = 1.5

    def __init__(self) -> None:
        self._asked: float | None = None

    def __call__(self) -> bool:
        loop = getattr(_kernel(), "io_loop", None)
        if loop is None:
            return True
        now, asked = time.monotonic(), self._asked  # the answer may come in between, from the loop's thread
        if asked is None:
            self._asked = now
            loop.add_callback(self._answer)
            return True
        return now - asked < self._PATIENCE_SECONDS

    def _answer(self) -> None:
        self._asked = None


def this_cell() -> tuple[str, str] | None:
    """(cell, execution) that runs at the moment; None where the front end does not say."""
    kernel = _kernel()
    if kernel is None:
        return None
    try:
        parent = kernel.get_parent()
        cell = parent["metadata"].get("cellId")
        return (str(cell), str(parent["header"]["msg_id"])) if cell else None
    except (KeyError, TypeError, AttributeError):
        return None


def _kernel() -> Any:
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return None
    return getattr(get_ipython(), "kernel", None)
