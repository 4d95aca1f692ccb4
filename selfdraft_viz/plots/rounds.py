"""Rounds: how many drafts were accepted, rejected and dropped, and why drafting stopped."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from selfdraft_viz.plots.colours import ACCEPTED, REJECTED
from selfdraft_viz.plots.outlines import filled, handles, outlines
from selfdraft_viz.plots.style import axis
from selfdraft_viz.plots.tables import Table, numbers, words

_THROWN_AWAY = "rgba(217, 96, 26, 0.35)"
_GAP = 0.05
"""Of a round's width, left free at each end."""


def rounds_traces() -> list[go.Scatter]:
    """The traces of the view without data: accepted drafts upwards, rejected and dropped ones downwards, hatched; after
    each what a mouse meets in its bars."""
    hatched = {"shape": "/", "fgcolor": REJECTED, "bgcolor": _THROWN_AWAY, "size": 6, "solidity": 0.35}
    looks: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
        ("accepted", "accepted", ACCEPTED, {}),
        ("rejected or dropped", "thrown away", _THROWN_AWAY, {"fillpattern": hatched}),
    )
    traces: list[go.Scatter] = []
    for name, what, colour, look in looks:
        template = f"round %{{customdata[0]}}: %{{customdata[1]}} of %{{customdata[2]}} drafts {what}<br>"
        traces.append(filled(name, colour, legend="legend3", **look))
        traces.append(handles(name, template + "drafting stopped: %{customdata[3]}<extra></extra>"))
    return traces


def rounds_data(rounds: Table) -> list[dict[str, Any]]:
    """What `rounds_traces` show: each round's bar stands over the tokens that the round committed.

    Args:
        rounds: columns round, first_position, drafted, accepted, committed, stop_reason.
    """
    first, committed = numbers(rounds, "first_position"), numbers(rounds, "committed")
    drafted, accepted = numbers(rounds, "drafted"), numbers(rounds, "accepted")
    left, right = first - 0.5 + _GAP * committed, first - 0.5 + (1 - _GAP) * committed
    data: list[dict[str, Any]] = []
    for count, sign in ((accepted, 1), (drafted - accepted, -1)):
        some = count > 0
        height = sign * count[some]
        data.append(outlines(left[some], right[some], np.zeros(len(height)), height))
        rows = zip(
            numbers(rounds, "round")[some], count[some], drafted[some], words(rounds, "stop_reason")[some], strict=True
        )
        said = [[int(number), int(c), int(d), str(reason)] for number, c, d, reason in rows]
        middle = ((left + right) / 2)[some].astype("float32")
        data.append({"x": middle, "y": (height / 2).astype("float32"), "customdata": said})
    return data


def rounds_axis(widest: int) -> dict[str, Any]:
    """Drafts, up and down from 0, for rounds of up to `widest`."""
    step = max(1, int(np.ceil(widest / 2)))
    ticks = [-2 * step, -step, 0, step, 2 * step]
    ends = 2 * step * 1.1
    return axis(
        "drafts", range=[-ends, ends], tickvals=ticks, ticktext=[str(abs(tick)) for tick in ticks], zeroline=True
    )
