"""Exit depth: how many layers each new token's value came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from selfdraft_viz.plots.colours import INK, KIND_SYMBOLS, depth_colour
from selfdraft_viz.plots.outlines import along, filled, handles, merged, outlines
from selfdraft_viz.plots.style import axis
from selfdraft_viz.plots.tables import Table, numbers, words

MARKED_KINDS = ("first", "correction", "bonus")
"""Kinds that get a mark of their own over the bar."""
MEAN_WINDOW = 16
"""Tokens over which the running mean of depths is taken."""


def depth_traces(exit_layers: Sequence[int], num_layers: int) -> list[go.Scatter]:
    """The traces of the view without data: what a mouse meets in the bars, the bars of each depth there can be, and one
    trace of marks for each of `MARKED_KINDS`."""
    bars = [
        filled(f"depth {depth}", depth_colour(depth, num_layers), showlegend=False, visible=False)
        for depth in _depths(exit_layers, num_layers)
    ]
    met = handles("exit depth", "position %{x}<br>exit depth: %{customdata} layers<extra></extra>")
    marks = [
        go.Scatter(
            name=kind,
            mode="markers",
            marker={"symbol": KIND_SYMBOLS[kind], "size": 7, "color": INK, "line": {"width": 0}},
            hovertemplate=f"position %{{x}}<br>{kind}: all {num_layers} layers<extra></extra>",
            legend="legend",
        )
        for kind in MARKED_KINDS
    ]
    mean = go.Scatter(
        name=f"mean of {MEAN_WINDOW}",
        mode="lines",
        line={"color": INK, "width": 2.5},
        hovertemplate=f"mean of the last {MEAN_WINDOW} tokens: %{{y:.1f}} layers<extra></extra>",
        legend="legend",
    )
    return [met, *bars, *marks, mean]


def depth_data(tokens: Table, exit_layers: Sequence[int], num_layers: int) -> list[dict[str, Any]]:
    """What `depth_traces` show of a table of new tokens (columns position, kind, exit_depth): properties a trace."""
    position, depth, kind = numbers(tokens, "position"), numbers(tokens, "exit_depth"), words(tokens, "kind")
    new = kind != "prompt"
    position, depth, kind = position[new].astype("int32"), depth[new].astype("int16"), kind[new]
    data: list[dict[str, Any]] = [along(position, depth)]
    for level in _depths(exit_layers, num_layers):
        first, last = merged(position[depth == level])
        bars = outlines(first - 0.5, last + 0.5, np.zeros(len(first)), np.full(len(first), level))
        data.append({**bars, "visible": len(first) > 0})  # plotly takes its time over what is empty too
    for marked in MARKED_KINDS:
        at = position[kind == marked]
        data.append({"x": at, "y": np.full(len(at), num_layers * 1.08, dtype="float32")})
    at, mean = mean_depth(tokens)
    return [*data, {"x": at, "y": mean}]


def mean_depth(tokens: Table) -> tuple[np.ndarray, np.ndarray]:
    """Positions of new tokens, and the mean exit depth of each with the `MEAN_WINDOW` - 1 before it: each (tokens,)."""
    new = words(tokens, "kind") != "prompt"
    position, depth = numbers(tokens, "position")[new], numbers(tokens, "exit_depth")[new]
    count = np.arange(len(depth)) + 1
    since = np.maximum(count - MEAN_WINDOW, 0)
    total = np.concatenate([[0.0], depth.cumsum()])
    return position.astype("int32"), ((total[count] - total[since]) / (count - since)).astype("float32")


def depth_axis(num_layers: int) -> dict[str, Any]:
    """The axis of layers, with L marked."""
    step = max(1, round(num_layers / 4))
    ticks = [*range(0, num_layers - step // 2, step), num_layers]
    return axis("layers", range=[0, num_layers * 1.18], tickvals=ticks)


def _depths(exit_layers: Sequence[int], num_layers: int) -> list[int]:
    """Every depth that a token can come from."""
    return sorted({*exit_layers, num_layers})
