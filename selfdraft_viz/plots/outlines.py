"""Many bars as one outline, for figures that are drawn anew several times a second.

plotly draws the bars of a `bar` trace one by one, and a line with gaps piece by piece. A closed outline without gaps is
a single path, however many bars it goes round: with 512 tokens and 2500 drafts on view the browser needs a fraction of
the time for a frame. An outline has nothing inside it that a mouse could meet; `handles` are points without a look that
stand there instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

_HANDLES = 5
"""Points along a bar, near enough to each other that a mouse inside the bar is always near one."""


def filled(name: str, fillcolor: str, **changes: Any) -> go.Scatter:
    """A trace for `outlines`, without data."""
    looks = {"mode": "none", "fill": "toself", "hoverinfo": "skip"}
    return go.Scatter({"name": name, "fillcolor": fillcolor, **looks, **changes})


def outlines(left: np.ndarray, right: np.ndarray, bottom: np.ndarray, top: np.ndarray) -> dict[str, np.ndarray]:
    """The corners of rectangles, as one path that comes back to 0 between them on lines without width: x and y, each
    (6 * rectangles,)."""
    zero = np.zeros(len(left))
    x = np.stack([left, left, right, right, left, left], axis=1)
    y = np.stack([zero, top, top, bottom, bottom, zero], axis=1)
    return {"x": x.ravel().astype("float32"), "y": y.ravel().astype("float32")}


def merged(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours on an axis of whole numbers as runs: their first and last numbers.

    Args:
        at: increasing whole numbers.
    """
    apart = np.diff(at) != 1
    return at[np.append(True, apart)[: len(at)]], at[np.append(apart, True)[: len(at)]]


def handles(name: str, hovertemplate: str) -> go.Scatter:
    """A trace without a look, for `along`."""
    looks = {"mode": "none", "hoveron": "points", "fill": "none", "showlegend": False}
    return go.Scatter({"name": name, "hovertemplate": hovertemplate, **looks})


def along(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Points along the middle of bars from 0 to `y`, the farthest first; `customdata` is each bar's `y`."""
    shares = np.linspace(1, 0, _HANDLES, endpoint=False)
    heights = (y[:, None] * shares).ravel().astype("float32")
    return {"x": np.repeat(x, _HANDLES), "y": heights, "customdata": np.repeat(y, _HANDLES)}
