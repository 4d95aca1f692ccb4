"""Five views over one axis of positions: exit depth, confidence, rounds, acceptance rate, speed.

The traces are always the same, in the same order, so that a live figure can be fed by `dashboard_data` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from selfdraft_viz.plots.acceptance import acceptance_axis, acceptance_data, acceptance_traces
from selfdraft_viz.plots.colours import INK
from selfdraft_viz.plots.confidence import confidence_axis, confidence_data, confidence_traces
from selfdraft_viz.plots.depth import depth_axis, depth_data, depth_traces
from selfdraft_viz.plots.pinned import PinnedCurves, fastest_of, pinned_data, pinned_traces
from selfdraft_viz.plots.rounds import rounds_axis, rounds_data, rounds_traces
from selfdraft_viz.plots.speed import speed_axis, speed_data, speed_traces, tokens_per_second
from selfdraft_viz.plots.style import NOTHING, axis, margins, plain_layout
from selfdraft_viz.plots.tables import Table, numbers

if TYPE_CHECKING:
    from selfdraft_viz.trace import Trace

HEIGHT = 800
_ROW_HEIGHTS = [0.25, 0.21, 0.19, 0.15, 0.20]
_TITLES = (
    "<b>Exit depth</b>  low bars: cheap tokens",
    "<b>Confidence at the exit</b>  exit at or above the threshold",
    "<b>Drafts per round</b>  up: accepted, down: thrown away",
    "<b>Acceptance rate</b>  over all drafts so far",
    "<b>Speed</b>  decoding time only",
)


def dashboard(trace: Trace, plain: Trace | None = None, pinned: Sequence[PinnedCurves] = ()) -> go.Figure:
    """A trace in five views; `plain` is ordinary decoding of the same prompt, for the speed; `pinned` runs stay below.

    Works on a decode that was stopped, and on one that still runs.
    """
    first_position = len(trace.prompt_ids)
    widest = int(numbers(trace.rounds, "drafted").max(initial=1))
    fastest = max(float(np.nanmax(tokens_per_second(trace.tokens)[1], initial=1.0)), fastest_of(pinned))
    figure = blank_dashboard(trace.exit_layers, trace.num_layers, first_position, len(trace.token_ids), widest, fastest)
    data = dashboard_data(
        trace.tokens,
        trace.drafts,
        trace.rounds,
        trace.exit_checks,
        trace.exit_layers,
        trace.num_layers,
        plain.tokens if plain else None,
    )
    data += pinned_data(pinned, first_position)
    for shown, properties in zip(figure.data, data, strict=True):
        shown.update({name.replace(".", "_"): value for name, value in properties.items()})
    return figure


def blank_dashboard(
    exit_layers: Sequence[int],
    num_layers: int,
    first_position: int,
    new_tokens: int,
    widest: int = 6,
    fastest: float = 50.0,
) -> go.Figure:
    """The five views before anything is decoded.

    Args:
        exit_layers: of the model.
        num_layers: L.
        first_position: position of the first new token.
        new_tokens: how many there can be; fixes the horizontal axis.
        widest: the most drafts in a round.
        fastest: tokens per second that must fit.
    """
    figure = make_subplots(rows=5, cols=1, shared_xaxes=True, row_heights=_ROW_HEIGHTS, vertical_spacing=0.075)
    groups = [
        depth_traces(exit_layers, num_layers),
        confidence_traces(num_layers),
        rounds_traces(),
        acceptance_traces(),
        speed_traces(),
    ]
    for row, traces in enumerate(groups, start=1):
        for trace in traces:
            figure.add_trace(trace, row=row, col=1)
    for line, row in pinned_traces():
        figure.add_trace(line, row=row, col=1)
    figure.update_layout(plain_layout(height=HEIGHT, margin=margins(t=32, b=44, l=58, r=10)))
    hidden = axis(None, showticklabels=False)
    figure.update_layout(
        xaxis=hidden,
        xaxis2=hidden,
        xaxis3=hidden,
        xaxis4=hidden,
        xaxis5=axis("position (tokens)"),
        yaxis=depth_axis(num_layers),
        yaxis2=confidence_axis(),
        yaxis3=rounds_axis(widest),
        yaxis4=acceptance_axis(),
        yaxis5=speed_axis(fastest),
        shapes=[_line_at(num_layers)],
    )
    figure.plotly_relayout(dashboard_ranges(num_layers, first_position, new_tokens, widest, fastest))
    for row, title in enumerate(_TITLES, start=1):
        top = figure.layout["yaxis" if row == 1 else f"yaxis{row}"].domain[1]
        figure.add_annotation(
            text=title, x=0, y=top, xref="paper", yref="paper", xanchor="left", yanchor="bottom", showarrow=False,
            font={"size": 14}, yshift=4,
        )  # fmt: skip
        legend = {
            "orientation": "h", "x": 1, "xanchor": "right", "y": top, "yanchor": "bottom", "font": {"size": 13},
            "itemsizing": "constant", "bgcolor": "rgba(0,0,0,0)", "tracegroupgap": 0,
        }  # fmt: skip
        figure.update_layout({"legend" if row == 1 else f"legend{row}": legend})
    return figure


def dashboard_ranges(
    num_layers: int, first_position: int, new_tokens: int, widest: int, fastest: float
) -> dict[str, Any]:
    """What of the layout depends on the decode, by property path; arguments as for `blank_dashboard`."""
    span = [first_position - 1, first_position + max(new_tokens, 8)]
    rounds = rounds_axis(widest)
    return {
        **{f"{name}.range": span for name in ("xaxis", "xaxis2", "xaxis3", "xaxis4", "xaxis5")},
        **{f"yaxis3.{name}": rounds[name] for name in ("range", "tickvals", "ticktext")},
        "yaxis5.range": speed_axis(fastest)["range"],
    }


def _line_at(num_layers: int) -> dict[str, Any]:
    line = {"color": INK, "width": 1.5, "dash": "dash"}
    ends = {"xref": "paper", "x0": 0, "x1": 1, "yref": "y", "y0": num_layers, "y1": num_layers}
    return {"type": "line", **ends, "line": line, "layer": "below"}


def dashboard_data(
    tokens: Table,
    drafts: Table,
    rounds: Table,
    checks: Table,
    exit_layers: Sequence[int],
    num_layers: int,
    plain_tokens: Table | None = None,
) -> list[dict[str, Any]]:
    """Properties of the dashboard's traces, in order: `{"x": ..., "y": ..., "marker.color": ...}`. Those of pinned runs
    come after them; see `pinned_data`.

    Tables have the columns of a trace's tables; sequences in a mapping will do.
    """
    data = [
        *depth_data(tokens, exit_layers, num_layers),
        *confidence_data(drafts, checks),
        *rounds_data(rounds),
        *acceptance_data(rounds),
        *speed_data(tokens, plain_tokens),
    ]
    return [properties if len(properties["x"]) else {**properties, **NOTHING} for properties in data]
