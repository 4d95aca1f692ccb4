"""Confidence at the exit against the threshold, draft by draft."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from selfdraft_viz.plots.colours import DROPPED, INK, OUTCOME_SYMBOLS, REJECTED, depth_scale
from selfdraft_viz.plots.outlines import filled, handles, outlines
from selfdraft_viz.plots.style import axis
from selfdraft_viz.plots.tables import Table, numbers, words

_DASH = (0.8, 0.025)
"""Width in positions and height in units of confidence of a dropped draft's dash."""


def confidence_traces(num_layers: int) -> list[go.Scatter]:
    """The traces of the view without data: drafts by outcome, and the threshold as it was at each position. Dropped
    drafts can be many a position: they are dashes, drawn as one outline, and what a mouse meets on them."""
    by_depth = {"colorscale": depth_scale(), "cmin": 1, "cmax": num_layers, "line": {"width": 0.5, "color": INK}}
    looks: dict[str, dict[str, Any]] = {"accepted": {**by_depth, "size": 8}, "rejected": {"color": REJECTED, "size": 8}}
    hover = "position %{x}<br>confidence %{y:.3f}<extra>%{fullData.name}</extra>"
    drafts = [
        go.Scatter(
            name=outcome,
            mode="markers",
            marker={"symbol": OUTCOME_SYMBOLS[outcome], **look},
            hovertemplate=hover,
            legend="legend2",
        )
        for outcome, look in looks.items()
    ]
    dropped = [filled("dropped", DROPPED, legend="legend2"), handles("dropped", hover)]
    threshold = go.Scatter(
        name="threshold",
        mode="lines",
        line={"color": INK, "width": 2, "dash": "dash", "shape": "hv"},
        hovertemplate="threshold %{y:.2f}<extra></extra>",
        connectgaps=False,
        legend="legend2",
    )
    return [*drafts, *dropped, threshold]


def confidence_data(drafts: Table, checks: Table) -> list[dict[str, Any]]:
    """What `confidence_traces` show.

    Args:
        drafts: columns position, exit_depth, confidence, outcome.
        checks: columns position (the row; it predicts position + 1), threshold.
    """
    position, depth = numbers(drafts, "position").astype("int32"), numbers(drafts, "exit_depth").astype("int16")
    confidence, outcome = numbers(drafts, "confidence").astype("float32"), words(drafts, "outcome")
    data: list[dict[str, Any]] = []
    for name in ("accepted", "rejected"):
        these = outcome == name
        data.append({"x": position[these], "y": confidence[these]})
        data[-1]["marker.color"] = depth[these] if name == "accepted" else REJECTED
    x, y = position[outcome == "dropped"], confidence[outcome == "dropped"]
    dashes = outlines(x - _DASH[0] / 2, x + _DASH[0] / 2, y - _DASH[1] / 2, y + _DASH[1] / 2)
    return [*data, dashes, {"x": x, "y": y}, threshold_steps(checks)]


def threshold_steps(checks: Table) -> dict[str, Any]:
    """The threshold in force over positions, as the corners of a step line; a gap where nothing could exit."""
    position, threshold = numbers(checks, "position"), numbers(checks, "threshold")
    if not len(position):
        return {"x": np.zeros(0, "float32"), "y": np.zeros(0, "float32")}
    corner = np.ones(len(position), dtype=bool)
    corner[1:] = threshold[1:] != threshold[:-1]
    x = np.append(position[corner] + 0.5, position.max() + 1.5).astype("float32")
    y = np.append(threshold[corner], threshold[-1])
    return {"x": x, "y": np.where(np.isinf(y), np.nan, y).astype("float32")}


def confidence_axis() -> dict[str, Any]:
    return axis("confidence", range=[0, 1.06], tickvals=[0, 0.25, 0.5, 0.75, 1], ticktext=["0", "", "0.5", "", "1"])
