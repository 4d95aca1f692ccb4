"""Three views over one axis of layers: the schedule, where tokens came from, and one token's confidences.

The traces are always the same, in the same order: `SCHEDULE`, `HISTOGRAM` and `TOKEN` say which belong to which view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from selfdraft_viz.plots.colours import ACCEPTED, INK, REJECTED, depth_scale
from selfdraft_viz.plots.style import NOTHING, axis, margins, nice_ceiling, plain_layout
from selfdraft_viz.plots.tables import Table, numbers, words
from selfdraft_viz.schedules import PerLayerTemperature
from selfdraft_viz.settings import Settings

if TYPE_CHECKING:
    from selfdraft_viz.events import ExitCheck
    from selfdraft_viz.trace import Trace

HEIGHT = 630
SCHEDULE, HISTOGRAM, TOKEN = range(0, 3), range(3, 5), range(5, 8)
_TITLES = (
    "<b>Schedule</b>  exit temperature T",
    "<b>Where tokens came from</b>",
    "<b>Selected token</b>  confidence",
)


def blank_exits(num_layers: int) -> go.Figure:
    """The three views, empty."""
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.11, row_heights=[0.27, 0.36, 0.37])
    by_depth = {"colorscale": depth_scale(), "cmin": 1, "cmax": num_layers}
    hatched = {"shape": "/", "fgcolor": REJECTED, "size": 6, "solidity": 0.35}
    views: list[list[Any]] = [
        [
            go.Scatter(name="T", mode="lines", line={"color": INK, "width": 2}, hoverinfo="skip", showlegend=False),
            go.Scatter(
                name="exit in use",
                mode="markers",
                marker={**by_depth, "size": 12, "line": {"width": 1, "color": INK}},
                hovertemplate="after %{x} layers: T = %{y:.3g}<extra></extra>",
                showlegend=False,
            ),
            go.Scatter(
                name="exit switched off",
                mode="markers",
                marker={"symbol": "circle-open", "size": 10, "color": INK, "line": {"width": 1.5}},
                hovertemplate="after %{x} layers: T = %{y:.3g}, switched off<extra></extra>",
                showlegend=False,
            ),
        ],
        [
            go.Bar(
                name="committed",
                width=0.8,
                marker={**by_depth, "line": {"width": 0}},
                hovertemplate="%{y} tokens from depth %{x}<extra>committed</extra>",
                showlegend=False,
            ),
            go.Bar(
                name="thrown away",
                width=0.8,
                marker={
                    "color": "rgba(217, 96, 26, 0.35)",
                    "line": {"width": 1, "color": REJECTED},
                    "pattern": hatched,
                },
                hovertemplate="%{y} drafts from depth %{x}<extra>thrown away</extra>",
                legend="legend2",
            ),
        ],
        [
            go.Scatter(
                name="annealed",
                mode="markers",
                marker={"symbol": "circle", "size": 12, "color": ACCEPTED, "line": {"width": 1, "color": INK}},
                hovertemplate="after %{x} layers: %{y:.3f}<extra>annealed</extra>",
                legend="legend3",
            ),
            go.Scatter(
                name="un-annealed",
                mode="markers",
                marker={"symbol": "diamond-open", "size": 11, "color": INK, "line": {"width": 1.5}},
                hovertemplate="after %{x} layers: %{y:.3f}<extra>un-annealed</extra>",
                legend="legend3",
            ),
            go.Scatter(
                name="threshold",
                mode="lines",
                line={"color": INK, "width": 2, "dash": "dash"},
                hovertemplate="threshold %{y:.3g}<extra></extra>",
                showlegend=False,
            ),
        ],
    ]
    for row, traces in enumerate(views, start=1):
        for trace in traces:
            figure.add_trace(trace, row=row, col=1)
    span = [0, num_layers + 0.6]
    step = max(1, round(num_layers / 8))
    ticks = [*range(0, num_layers - step // 2, step), num_layers]
    figure.update_layout(
        plain_layout(height=HEIGHT, barmode="relative", margin=margins(t=30, b=108, l=46, r=8)),
        xaxis=axis(None, range=span, tickvals=ticks),
        xaxis2=axis(None, range=span, tickvals=ticks),
        xaxis3=axis("layers", range=span, tickvals=ticks),
        yaxis=axis(None, range=[0, 3], nticks=4),
        yaxis2=axis("tokens", zeroline=True, range=[-1, 10], nticks=5),
        yaxis3=axis("confidence", range=[0, 1.06], tickvals=[0, 0.5, 1]),
    )
    for row, title in enumerate(_TITLES, start=1):
        top = figure.layout["yaxis" if row == 1 else f"yaxis{row}"].domain[1]
        figure.add_annotation(
            text=title, x=0, y=top, xref="paper", yref="paper", xanchor="left", yanchor="bottom", showarrow=False,
            font={"size": 14}, yshift=4, xshift=-34,
        )  # fmt: skip
        legend = {"orientation": "h", "x": 1, "xanchor": "right", "y": top, "yanchor": "top", "font": {"size": 13}}
        if row == 3:
            legend["y"] = -0.12
        figure.update_layout(
            {"legend" if row == 1 else f"legend{row}": {**legend, "bgcolor": "rgba(128,128,128,0.08)"}}
        )
    return figure


def schedule_data(settings: Settings, exit_layers: Sequence[int], num_layers: int) -> list[dict[str, Any]]:
    """The traces of `SCHEDULE`: T_l as a curve, at the exits in use, and at those that are not."""
    schedule = settings.schedule
    known = exit_layers
    if isinstance(schedule, PerLayerTemperature):
        known = [layer for layer in exit_layers if layer in schedule.values]
        curve = {layer: schedule.values[layer] for layer in known}
    else:
        curve = schedule.temperatures(range(1, num_layers), num_layers)
    at_exits = schedule.temperatures(known, num_layers)
    used = settings.plan(exit_layers, num_layers).exit_temperatures
    off = {layer: value for layer, value in at_exits.items() if layer not in used}
    return [_points(curve), {**_points(used), "marker.color": np.array(list(used), dtype="int16")}, _points(off)]


def schedule_range(settings: Settings, exit_layers: Sequence[int], num_layers: int) -> list[float]:
    """Ends of the axis of temperatures."""
    values = [float(value) for data in schedule_data(settings, exit_layers, num_layers) for value in data["y"]]
    return [0.0, max(2.0, nice_ceiling(max((value for value in values if value == value), default=1.0)))]


def histogram_data(tokens: Table, drafts: Table, num_layers: int) -> list[dict[str, Any]]:
    """The traces of `HISTOGRAM`: tokens committed by exit depth, and drafts thrown away, downwards.

    Args:
        tokens: columns exit_depth, kind.
        drafts: columns exit_depth, outcome.
    """
    layers = np.arange(1, num_layers + 1)
    committed = numbers(tokens, "exit_depth")[words(tokens, "kind") != "prompt"]
    thrown = numbers(drafts, "exit_depth")[words(drafts, "outcome") != "accepted"]
    up, down = ((depths[:, None] == layers[None, :]).sum(axis=0) for depths in (committed, thrown))
    some, thrown_some = up > 0, down > 0
    at = layers.astype("int16")
    return [
        {"x": at[some], "y": up[some].astype("int32"), "marker.color": at[some]},
        {"x": at[thrown_some], "y": -down[thrown_some].astype("int32")},
    ]


def histogram_range(data: Sequence[dict[str, Any]]) -> list[float]:
    """Ends of the axis of tokens, for what `histogram_data` gave."""
    up, down = float(data[0]["y"].max(initial=0)), float(-data[1]["y"].min(initial=0))
    return [-(nice_ceiling(down) if down else 0.0) * 1.05, nice_ceiling(max(up, 5.0)) * 1.05]


def token_data(checks: Sequence[ExitCheck]) -> list[dict[str, Any]]:
    """The traces of `TOKEN`: confidences of one token at its exits, shallow first, and the threshold at each."""
    if not checks:
        return [dict(NOTHING) for _ in TOKEN]
    layers = [check.layer for check in checks]
    unannealed = [check.unannealed_confidence for check in checks]
    thresholds = [check.threshold if check.threshold <= 1 else float("nan") for check in checks]
    return [
        _points({check.layer: check.confidence for check in checks}),
        _points({layer: float("nan") if c is None else c for layer, c in zip(layers, unannealed, strict=True)}),
        {
            "x": np.array([x for layer in layers for x in (layer - 0.8, layer + 0.8, layer + 0.8)], dtype="float32"),
            "y": np.array([y for t in thresholds for y in (t, t, float("nan"))], dtype="float32"),
        },
    ]


def exits(trace: Trace, position: int | None = None) -> go.Figure:
    """The three views of a trace, with the token at `position` selected (None = the last draft that was accepted)."""
    figure = blank_exits(trace.num_layers)
    data = [*histogram_data(trace.tokens, trace.drafts, trace.num_layers), *token_data(checks_of(trace, position))]
    layout: dict[str, Any] = {"yaxis2.range": histogram_range(data)}
    if trace.settings is not None:
        data = [*schedule_data(trace.settings, trace.exit_layers, trace.num_layers), *data]
        layout["yaxis.range"] = schedule_range(trace.settings, trace.exit_layers, trace.num_layers)
    for shown, properties in zip(figure.data[-len(data) :], data, strict=True):
        shown.update({name.replace(".", "_"): value for name, value in properties.items()})
    figure.plotly_relayout(layout)
    return figure


def checks_of(trace: Trace, position: int | None) -> list[ExitCheck]:
    """The exit checks whose outcome the token at `position` is, shallow first."""
    from selfdraft_viz.events import ExitCheck
    from selfdraft_viz.plots.replay import events_of

    if position is None:
        accepted = trace.tokens.loc[trace.tokens["kind"] == "accepted", "position"]
        position = int(accepted.iloc[-1]) if len(accepted) else -1
    rounds = trace.tokens.loc[trace.tokens["position"] == position, "round"].dropna()
    number = int(rounds.iloc[0]) if len(rounds) else None
    checks = [event for event in events_of(trace) if isinstance(event, ExitCheck)]
    return [check for check in checks if check.position == position - 1 and check.round == number]


def _points(values: Any) -> dict[str, Any]:
    if not values:
        return dict(NOTHING)
    return {"x": np.array(list(values), dtype="int16"), "y": np.array(list(values.values()), dtype="float32")}
