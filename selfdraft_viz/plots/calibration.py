"""How sure exits are against how right they are: tables of `selfdraft_viz.lab.calibration` and `.study` in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from selfdraft_viz.plots.colours import INK, NEUTRAL, REJECTED, depth_colour
from selfdraft_viz.plots.style import axis, heading, plain_layout

# Okabe & Ito's colours, each with a symbol of its own.
_SERIES = (
    ("#0072b2", "circle"), ("#d55e00", "square"), ("#009e73", "diamond"), ("#cc79a7", "triangle-up"),
    ("#56b4e9", "cross"), ("#e69f00", "triangle-down"),
)  # fmt: skip
_DIAGONAL = {"color": INK, "width": 1, "dash": "dot"}


def reliability_diagram(tables: Mapping[str, pd.DataFrame], num_layers: int, title: str = "") -> go.Figure:
    """Agreement with the final layer against confidence, a panel a table; below the dotted line an exit is surer than
    it is right.

    Args:
        tables: by the panel's title, tables of `reliability_table`.
        num_layers: L, for the colours of depth.
        title: of the figure.
    """
    figure = make_subplots(1, len(tables), subplot_titles=list(tables), shared_yaxes=True, horizontal_spacing=0.04)
    for column, table in enumerate(tables.values(), start=1):
        figure.add_trace(go.Scatter(**_diagonal()), row=1, col=column)
        for trace in _reliability_traces(table, num_layers, legend=column == 1):
            figure.add_trace(trace, row=1, col=column)
        figure.update_xaxes(_share_axis("confidence at the exit"), row=1, col=column)
    figure.update_yaxes(axis(range=[0, 1.02]), tickformat=".0%")
    figure.update_yaxes(title_text="agrees with the final layer", row=1, col=1)
    return _finish(figure, title, 400)


def calibration_errors(calibration: pd.DataFrame, title: str = "") -> go.Figure:
    """Expected calibration error by exit with its 95 % interval, a panel a set of heads, a mark a schedule.

    Args:
        calibration: columns heads, schedule, exit_layer, ece, ece_low, ece_high, of one kind of text.
        title: of the figure.
    """
    names = list(dict.fromkeys(calibration["heads"]))
    schedules = list(dict.fromkeys(calibration["schedule"]))
    figure = make_subplots(1, len(names), subplot_titles=names, shared_yaxes=True, horizontal_spacing=0.04)
    for column, name in enumerate(names, start=1):
        layers = sorted(calibration.loc[calibration["heads"] == name, "exit_layer"].unique())
        for index, schedule in enumerate(schedules):
            table = calibration[(calibration["heads"] == name) & (calibration["schedule"] == schedule)]
            colour, symbol = _SERIES[index]
            aside = (index - (len(schedules) - 1) / 2) * 0.17
            figure.add_trace(
                go.Scatter(
                    name=schedule,
                    legendgroup=schedule,
                    showlegend=column == 1,
                    x=[layers.index(layer) + aside for layer in table["exit_layer"]],
                    y=table["ece"],
                    mode="markers",
                    marker={"color": colour, "symbol": symbol, "size": 9},
                    error_y=_interval(table, "ece", colour),
                    customdata=table[["exit_layer", "ece_low", "ece_high"]],
                    hovertemplate="exit %{customdata[0]}: %{y:.3f} (%{customdata[1]:.3f} .. %{customdata[2]:.3f})"
                    f"<extra>{schedule}</extra>",
                ),
                row=1,
                col=column,
            )
        figure.update_xaxes(
            axis("exit layer", tickvals=list(range(len(layers))), ticktext=[str(layer) for layer in layers]),
            row=1,
            col=column,
        )
    figure.update_yaxes(axis(rangemode="tozero"))
    figure.update_yaxes(title_text="calibration error (0 = as right as sure)", row=1, col=1)
    return _finish(figure, title, 400)


def fitted_temperatures(tables: Mapping[str, pd.DataFrame], num_layers: int, title: str = "") -> go.Figure:
    """Fitted exit temperatures against depth, each with the closest straight line to 1 at the top.

    Args:
        tables: by name, tables of `straightness`.
        num_layers: L.
        title: of the figure.
    """
    figure = go.Figure()
    figure.add_hline(y=1, line=_DIAGONAL)
    for (name, table), (colour, symbol) in zip(tables.items(), _SERIES, strict=False):
        alpha = float(table["alpha"].iloc[0])
        figure.add_scatter(
            name=f"{name} (line: alpha = {alpha:.2f})",
            x=table["exit_layer"],
            y=table["temperature"],
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 10},
            hovertemplate=f"exit %{{x}}: T = %{{y:.2f}}<extra>{name}</extra>",
        )
        figure.add_scatter(
            name=f"{name}: straight line",
            showlegend=False,
            x=[0, num_layers],
            y=[1 + alpha, 1],
            mode="lines",
            line={"color": colour, "width": 1.5, "dash": "dash"},
            hoverinfo="skip",
        )
    figure.update_xaxes(axis("exit layer", range=[0, num_layers + 0.3]))
    figure.update_yaxes(axis("fitted exit temperature"))
    return _finish(figure, title, 420)


def risk_coverage_figure(tables: Mapping[str, pd.DataFrame], title: str = "") -> go.Figure:
    """Agreement against coverage, a line a table; higher is better, further right is more drafts.

    Args:
        tables: by name, tables with the columns coverage, agreement and threshold.
        title: of the figure.
    """
    figure = go.Figure()
    for (name, table), (colour, symbol) in zip(tables.items(), _SERIES, strict=False):
        some = table[table["coverage"] > 0]
        figure.add_scatter(
            name=name,
            x=some["coverage"],
            y=some["agreement"],
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"symbol": symbol, "size": 6},
            customdata=some[["threshold"]],
            hovertemplate="threshold %{customdata[0]:.2f}: %{x:.0%} exit, %{y:.0%} of them right"
            f"<extra>{name}</extra>",
        )
    figure.update_xaxes(_share_axis("share of tokens that exit (coverage)"))
    figure.update_yaxes(axis("of these, agree with the final layer", range=[0, 1.02], tickformat=".0%"))
    return _finish(figure, title, 420)


def worth_figure(worth: pd.DataFrame, num_layers: int, title: str = "") -> go.Figure:
    """Layer passes per token at each schedule's best threshold, with 95 % intervals over texts, a row a set of heads.

    Args:
        worth: `CalibrationStudy.worth`.
        num_layers: L, what ordinary decoding takes.
        title: of the figure.
    """
    names, schedules = list(dict.fromkeys(worth["heads"])), list(dict.fromkeys(worth["schedule"]))
    figure = go.Figure()
    for index, schedule in enumerate(schedules):
        table = worth[worth["schedule"] == schedule]
        colour, symbol = _SERIES[index]
        aside = ((len(schedules) - 1) / 2 - index) * 0.17
        figure.add_scatter(
            name=schedule,
            x=table["layer_passes_per_token"],
            y=[len(names) - 1 - names.index(name) + aside for name in table["heads"]],
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 10},
            error_x=_interval(table, "layer_passes_per_token", colour),
            customdata=table[["threshold", "acceptance_rate", "accepted_per_token"]],
            hovertemplate="%{x:.2f} layer passes a token at threshold %{customdata[0]:.2f}<br>%{customdata[1]:.0%} of "
            f"drafts accepted, %{{customdata[2]:.2f}} a token<extra>{schedule}</extra>",
        )
    figure.add_vline(x=num_layers, line=_DIAGONAL, annotation_text="ordinary decoding", annotation_position="top left")
    figure.update_xaxes(axis("layer passes per token (predicted; fewer is better)"))
    places = list(range(len(names)))
    figure.update_yaxes(axis(range=[-0.6, len(names) - 0.4], tickvals=places, ticktext=names[::-1]))
    figure = _finish(figure, title, 120 + 95 * len(names))
    return figure.update_layout(margin={"l": 110})


def annealing_slider(
    steps: Mapping[float, Mapping[str, pd.DataFrame]],
    num_layers: int,
    threshold: float,
    start: float = 0.0,
    title: str = "",
) -> go.Figure:
    """Reliability, risk and coverage, and predicted exits under the linear schedule: one slider moves all three. It
    works without a kernel.

    Args:
        steps: `annealing_steps` of a record.
        num_layers: L.
        threshold: the one that the predicted exits are at.
        start: the alpha shown first; the nearest there is.
        title: of the figure.
    """
    alphas = list(steps)
    first = min(alphas, key=lambda alpha: abs(alpha - start))
    figure = make_subplots(
        1, 3, horizontal_spacing=0.09, subplot_titles=["sure and right?", "all thresholds", f"exits at {threshold:g}"]
    )
    figure.add_trace(go.Scatter(**_diagonal()), row=1, col=1)
    moving = _step_traces(steps[first], num_layers, threshold)
    for trace, column in moving:
        figure.add_trace(trace, row=1, col=column)
    figure.frames = [
        go.Frame(
            name=f"{alpha:g}",
            data=[trace for trace, _ in _step_traces(steps[alpha], num_layers, threshold)],
            traces=list(range(1, len(moving) + 1)),
        )
        for alpha in alphas
    ]
    figure.update_xaxes(_share_axis("confidence at the exit"), row=1, col=1)
    figure.update_xaxes(_share_axis("tokens that exit"), row=1, col=2)
    layers = [str(layer) for layer in steps[first]["exits"]["exit_layer"]]
    names = [*layers[:-1], "none"]
    figure.update_xaxes(axis("exit layer", tickvals=list(range(len(names))), ticktext=names), row=1, col=3)
    figure.update_yaxes(axis("agrees with the final layer", range=[0, 1.02], tickformat=".0%"), row=1, col=1)
    figure.update_yaxes(axis("of these, agree", range=[0, 1.02], tickformat=".0%"), row=1, col=2)
    figure.update_yaxes(axis("share of tokens", range=[0, 1.02], tickformat=".0%"), row=1, col=3)
    figure = _finish(figure, title, 500)
    return figure.update_layout(
        barmode="stack",
        margin={"b": 140},
        sliders=[slider([f"{alpha:g}" for alpha in alphas], alphas.index(first), "alpha = ", top=0.26)],
    )


def slider(names: Sequence[str], active: int, prefix: str, top: float = 0.15) -> dict[str, Any]:
    """A slider that shows the frames of these names at once."""
    steps = [
        {
            "label": name,
            "method": "animate",
            "args": [[name], {"mode": "immediate", "frame": {"duration": 0, "redraw": True}}],
        }
        for name in names
    ]
    return {
        "active": active,
        "steps": steps,
        "currentvalue": {"prefix": prefix, "font": {"size": 15}},
        "pad": {"t": 8},
        "y": -top,
        "transition": {"duration": 0},
    }


def _step_traces(tables: Mapping[str, pd.DataFrame], num_layers: int, threshold: float) -> list[tuple[Any, int]]:
    """(trace, column of its panel) pairs, in number and order the same for every step."""
    traces: list[tuple[Any, int]] = [(trace, 1) for trace in _reliability_traces(tables["reliability"], num_layers)]
    curve, exits = tables["curve"], tables["exits"]
    here = curve[curve["threshold"] == threshold]
    hover = "threshold %{customdata[0]:.2f}: %{x:.0%} exit, %{y:.0%} of them right<extra></extra>"
    look: dict[str, Any] = {"showlegend": False, "hovertemplate": hover}
    line = go.Scatter(
        x=curve["coverage"], y=curve["agreement"], customdata=curve[["threshold"]], mode="lines",
        line={"color": NEUTRAL, "width": 2}, **look,
    )  # fmt: skip
    point = go.Scatter(
        x=here["coverage"], y=here["agreement"], customdata=here[["threshold"]], mode="markers",
        marker={"color": "#0072b2", "size": 13, "symbol": "star"}, **look,
    )  # fmt: skip
    traces += [(line, 2), (point, 2)]
    places, right = list(range(len(exits))), (exits["share"] * exits["agreement"]).fillna(0)
    hard = [index == len(exits) - 1 for index in places]
    colours = [NEUTRAL if last else "#0072b2" for last in hard]
    kept = [share if last else good for share, good, last in zip(exits["share"], right, hard, strict=True)]
    wrong = [0.0 if last else share - good for share, good, last in zip(exits["share"], right, hard, strict=True)]
    traces.append((go.Bar(name="exits, right (grey: no exit)", x=places, y=kept, marker={"color": colours}), 3))
    pattern = {"shape": "/", "fgcolor": "#ffffff", "size": 6}
    bars = go.Bar(name="exits, wrong", x=places, y=wrong, marker={"color": REJECTED, "pattern": pattern})
    traces.append((bars, 3))
    return traces


def _reliability_traces(table: pd.DataFrame, num_layers: int, legend: bool = True) -> list[go.Scatter]:
    traces = []
    for layer, rows in table.groupby("exit_layer", sort=True):
        colour = depth_colour(float(layer), num_layers)  # type: ignore[arg-type]
        traces.append(
            go.Scatter(
                name=f"exit {layer}",
                legendgroup=f"exit {layer}",
                showlegend=legend,
                x=rows["confidence"],
                y=rows["agreement"],
                mode="lines+markers",
                line={"color": colour, "width": 2},
                marker={"size": 7, "line": {"width": 0.5, "color": INK}},
                error_y={**_interval(rows, "agreement", colour), "thickness": 1, "width": 2},
                customdata=rows[["rows"]],
                hovertemplate=f"exit {layer}: sure %{{x:.0%}}, right %{{y:.0%}} n=%{{customdata[0]}}<extra></extra>",
            )
        )
    return traces


def _interval(table: pd.DataFrame, name: str, colour: str) -> dict[str, Any]:
    above, below = table[f"{name}_high"] - table[name], table[name] - table[f"{name}_low"]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "color": colour, "thickness": 1.2}


def _diagonal() -> dict[str, Any]:
    return {"x": [0, 1], "y": [0, 1], "mode": "lines", "line": _DIAGONAL, "hoverinfo": "skip", "showlegend": False}


def _share_axis(title: str) -> dict[str, Any]:
    return axis(title, range=[0, 1.02], tickformat=".0%", dtick=0.25)


def _finish(figure: go.Figure, title: str, height: int) -> go.Figure:
    figure.update_layout(
        plain_layout(
            height=height,
            title=heading(title, y=0.97, yanchor="top"),
            margin={"t": 100, "b": 56},
            legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.08, "yanchor": "bottom"},
        )
    )
    figure.update_yaxes(ticklabelstandoff=5)
    figure.update_xaxes(ticklabelstandoff=3)
    return figure
