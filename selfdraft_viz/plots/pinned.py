"""Runs that were kept to compare with: thin lines under the live ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from selfdraft_viz.plots.acceptance import acceptance_data
from selfdraft_viz.plots.depth import mean_depth
from selfdraft_viz.plots.speed import tokens_per_second
from selfdraft_viz.plots.style import NOTHING
from selfdraft_viz.plots.tables import Table
from selfdraft_viz.plots.text import hover_text

MOST_PINS = 4
LOOKS = (("#cc79a7", "dot"), ("#009e73", "dash"), ("#e69f00", "dashdot"), ("#0072b2", "longdash"))
"""Colour and dash by pin (colours after Okabe and Ito, 2008)."""
_VIEWS = (("legend", 1), ("legend4", 4), ("legend5", 5))
"""Legend and row of the dashboard of each of a pin's lines: exit depth, acceptance rate, speed."""


@dataclass(frozen=True)
class PinnedCurves:
    """Curves of a run over new tokens, counted from 0: (x, y) of mean depth, acceptance rate, tokens per second."""

    name: str
    depth: tuple[np.ndarray, np.ndarray]
    acceptance: tuple[np.ndarray, np.ndarray]
    speed: tuple[np.ndarray, np.ndarray]


def pinned_curves(name: str, tokens: Table, rounds: Table, first_position: int) -> PinnedCurves:
    """The curves of a run.

    Args:
        tokens: columns position, kind, round, exit_depth, seconds.
        rounds: columns first_position, drafted, accepted, committed.
        first_position: of its first new token.
    """
    position, _, speed = tokens_per_second(tokens)
    depth_at, depth = mean_depth(tokens)
    rate = acceptance_data(rounds)[0]
    return PinnedCurves(
        name,
        (depth_at - first_position, depth),
        (rate["x"] - first_position, rate["y"]),
        (position - first_position, speed),
    )


def pinned_traces() -> list[tuple[go.Scatter, int]]:
    """For `MOST_PINS` runs, each three lines without data, and the row of the dashboard each belongs to."""
    traces = []
    for index, (colour, dash) in enumerate(LOOKS):
        for legend, row in _VIEWS:
            line = go.Scatter(
                name=f"pin {index + 1}",
                mode="lines",
                line={"color": colour, "width": 1.6, "dash": dash, "shape": "hv" if row == 4 else "linear"},
                hovertemplate="%{y:.3g}<extra>%{fullData.name}</extra>",
                legend=legend,
                showlegend=False,
                visible=False,
            )
            traces.append((line, row))
    return traces


def pinned_data(pins: Sequence[PinnedCurves], first_position: int) -> list[dict[str, Any]]:
    """What `pinned_traces` show, moved to where the live run's new tokens begin."""
    data: list[dict[str, Any]] = []
    for index in range(MOST_PINS):
        pin = pins[index] if index < len(pins) else None
        for number, name in enumerate(("depth", "acceptance", "speed")):
            x, y = getattr(pin, name) if pin else (np.zeros(0), np.zeros(0))
            filled = len(x) > 0
            shown = {"x": (x + first_position).astype("float32"), "y": y} if filled else dict(NOTHING)
            called = pin.name if pin else f"pin {index + 1}"
            data.append({**shown, "name": hover_text(called), "showlegend": filled and number == 1, "visible": filled})
    return data


def fastest_of(pins: Sequence[PinnedCurves]) -> float:
    """Tokens per second that an axis must hold, the first few tokens left out."""
    return max((float(np.nanmax(pin.speed[1][4:], initial=0.0)) for pin in pins), default=0.0)
