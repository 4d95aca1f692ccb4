"""Acceptance rate: accepted / drafted, over all rounds so far."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from selfdraft_viz.plots.colours import ACCEPTED
from selfdraft_viz.plots.style import axis
from selfdraft_viz.plots.tables import Table, numbers


def acceptance_traces() -> list[go.Scatter]:
    """The trace of the view without data: the running rate, a step a round."""
    return [
        go.Scatter(
            name="this run",
            mode="lines",
            line={"color": ACCEPTED, "width": 3, "shape": "hv"},
            hovertemplate="%{y:.0%} of all drafts so far accepted<extra></extra>",
            legend="legend4",
        )
    ]


def acceptance_data(rounds: Table) -> list[dict[str, Any]]:
    """What `acceptance_traces` show, a point at the last token that each round committed.

    Args:
        rounds: columns first_position, drafted, accepted, committed.
    """
    drafted, accepted = numbers(rounds, "drafted").cumsum(), numbers(rounds, "accepted").cumsum()
    last = numbers(rounds, "first_position") + numbers(rounds, "committed") - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.where(drafted > 0, accepted / drafted, np.nan)
    return [{"x": last.astype("int32"), "y": rate.astype("float32")}]


def acceptance_axis() -> dict[str, Any]:
    return axis("accepted", range=[0, 1.06], tickvals=[0, 0.5, 1], ticktext=["0 %", "50 %", "100 %"])
