"""Rounds: how many drafts were accepted, rejected and dropped, and why drafting stopped."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from selfdraft_viz.plots.colours import ACCEPTED, REJECTED
from selfdraft_viz.plots.style import axis
from selfdraft_viz.plots.tables import Table, numbers, words


def rounds_traces() -> list[go.Bar]:
    """The traces of the view without data: accepted drafts upwards, rejected and dropped ones downwards, hatched."""
    return [
        go.Bar(
            name="accepted",
            marker={"color": ACCEPTED, "line": {"width": 0}},
            hovertemplate="round %{customdata[0]}: %{customdata[1]} of %{customdata[2]} drafts accepted<br>"
            "drafting stopped: %{customdata[3]}<extra></extra>",
            legend="legend3",
        ),
        go.Bar(
            name="rejected or dropped",
            marker={
                "color": "rgba(217, 96, 26, 0.35)",
                "line": {"width": 1, "color": REJECTED},
                "pattern": {"shape": "/", "fgcolor": REJECTED, "size": 6, "solidity": 0.35},
            },
            hovertemplate="round %{customdata[0]}: %{customdata[1]} of %{customdata[2]} drafts thrown away<br>"
            "drafting stopped: %{customdata[3]}<extra></extra>",
            legend="legend3",
        ),
    ]


def rounds_data(rounds: Table) -> list[dict[str, Any]]:
    """What `rounds_traces` show: each round's bar stands over the tokens that the round committed.

    Args:
        rounds: columns round, first_position, drafted, accepted, committed, stop_reason.
    """
    first, committed = numbers(rounds, "first_position"), numbers(rounds, "committed")
    drafted, accepted = numbers(rounds, "drafted"), numbers(rounds, "accepted")
    centre, width = (first + (committed - 1) / 2).astype("float32"), (committed * 0.9).astype("float32")
    thrown_away = drafted - accepted
    bars: list[dict[str, Any]] = []
    for count, sign in ((accepted, 1), (thrown_away, -1)):
        some = count > 0
        bars.append({"x": centre[some], "y": (sign * count[some]).astype("int16"), "width": width[some]})
        rows = zip(
            numbers(rounds, "round")[some], count[some], drafted[some], words(rounds, "stop_reason")[some], strict=True
        )
        bars[-1]["customdata"] = [[int(number), int(c), int(d), str(reason)] for number, c, d, reason in rows]
    return bars


def rounds_axis(widest: int) -> dict[str, Any]:
    """Drafts, up and down from 0, for rounds of up to `widest`."""
    step = max(1, int(np.ceil(widest / 2)))
    ticks = [-2 * step, -step, 0, step, 2 * step]
    ends = 2 * step * 1.1
    return axis(
        "drafts", range=[-ends, ends], tickvals=ticks, ticktext=[str(abs(tick)) for tick in ticks], zeroline=True
    )
