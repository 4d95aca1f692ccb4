"""Predictions held against measurements, and what a search reports. Tables come from `selfdraft_viz.lab`."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from selfdraft_viz.plots.colours import ACCEPTED, INK, REJECTED
from selfdraft_viz.plots.style import axis, plain_layout
from selfdraft_viz.plots.tables import Table, numbers, words
from selfdraft_viz.plots.text import hover_text


def predicted_against_measured(table: Table, band: float = 0.05) -> go.Figure:
    """Each setting a dot: measured speedup with its range over repeats, against the predicted one.

    Args:
        table: of `selfdraft_viz.lab.paired.compare_predictions`.
        band: the shaded error to either side of "as predicted", as a share.
    """
    x, y = numbers(table, "predicted"), numbers(table, "measured")
    low, high = numbers(table, "measured_low"), numbers(table, "measured_high")
    ends = np.array([0.96 * min(x.min(), low.min()), 1.04 * max(x.max(), high.max())])
    around = np.concatenate([ends, ends[::-1]])
    figure = go.Figure(
        [
            go.Scatter(
                x=around,
                y=around * np.array([1 - band, 1 - band, 1 + band, 1 + band]),
                fill="toself",
                mode="none",
                fillcolor="rgba(47, 127, 193, 0.15)",
                name=f"within {band:.0%}",
                hoverinfo="skip",
            ),
            go.Scatter(
                x=ends, y=ends, mode="lines", line={"color": INK, "dash": "dash"}, name="as predicted", hoverinfo="skip"
            ),
            go.Scatter(
                x=x,
                y=y,
                error_y={"array": high - y, "arrayminus": y - low, "color": ACCEPTED, "thickness": 1, "width": 3},
                mode="markers",
                marker={"color": ACCEPTED, "size": 8},
                text=[hover_text(str(name)) for name in words(table, "name")],
                hovertemplate="%{text}<br>predicted %{x:.2f}x, measured %{y:.2f}x<extra></extra>",
                name="a setting",
            ),
        ],
        layout=plain_layout(
            title={"text": "Predicted and measured speedup over ordinary decoding", "font": {"size": 15}, "x": 0.01},
            xaxis=axis("predicted speedup", range=ends.tolist()),
            yaxis=axis("measured speedup", range=ends.tolist()),
            height=440,
            margin={"l": 62, "r": 16, "t": 70, "b": 52},
            legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        ),
    )
    return figure


def speedup_intervals(table: Table, title: str, measured: Table | None = None) -> go.Figure:
    """One line a setting: predicted speedup with its interval, and the measured one beside it.

    Args:
        table: columns name, predicted, low, high; as of `selfdraft_viz.lab.search.held_out`.
        title: above the figure.
        measured: columns name, measured, measured_low, measured_high; None = not measured.
    """
    names = [hover_text(str(name)) for name in words(table, "name")]
    places = dict(zip(names, range(len(names)), strict=True))
    aside = 0.0 if measured is None else 0.14
    columns = ("predicted", "low", "high")
    figure = go.Figure(_dots("predicted", names, places, -aside, table, columns, ACCEPTED, "circle"))
    if measured is not None:
        theirs = [hover_text(str(name)) for name in words(measured, "name")]
        columns = ("measured", "measured_low", "measured_high")
        figure.add_trace(_dots("measured", theirs, places, aside, measured, columns, REJECTED, "diamond"))
    figure.add_vline(x=1, line={"color": INK, "width": 1, "dash": "dash"})
    return figure.update_layout(
        plain_layout(
            title={"text": title, "font": {"size": 15}, "x": 0.01},
            xaxis=axis("speedup over ordinary decoding (dashed: as fast)"),
            yaxis=axis(
                None, range=[len(names) - 0.5, -0.5], tickvals=list(places.values()), ticktext=names, showgrid=False
            ),
            height=140 + 34 * len(names),
            margin={"l": 170, "r": 16, "t": 70, "b": 52},
            legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        )
    )


def _dots(
    name: str,
    labels: list[str],
    places: dict[str, int],
    aside: float,
    table: Table,
    columns: tuple[str, str, str],
    colour: str,
    symbol: str,
) -> go.Scatter:
    middle, low, high = (numbers(table, column) for column in columns)
    return go.Scatter(
        x=middle,
        y=[places[label] + aside for label in labels],
        text=labels,
        error_x={"array": high - middle, "arrayminus": middle - low, "color": colour, "thickness": 1.5, "width": 4},
        mode="markers",
        marker={"color": colour, "size": 9, "symbol": symbol},
        customdata=np.stack([low, high], axis=-1),
        hovertemplate=f"%{{text}}<br>{name} %{{x:.2f}}x "
        "(%{customdata[0]:.2f} .. %{customdata[1]:.2f})<extra></extra>",
        name=name,
    )
