"""The logit lens as a grid: positions across, layers up, each cell the token that the layer would say next."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from selfdraft_viz.plots.colours import INK, REJECTED
from selfdraft_viz.plots.style import axis, heading, plain_layout
from selfdraft_viz.plots.text import hover_text

_SCALE = [(0.0, "#f4f7fb"), (0.5, "#8db7dc"), (1.0, "#2f6fae")]


def lens_figure(table: pd.DataFrame, title: str = "", sure: float = 0.6) -> go.Figure:
    """Darker is surer; an orange frame marks a layer that is at least `sure` and says something else than the last.

    Args:
        table: of `selfdraft_viz.lab.lens.lens_table`.
        title: of the figure.
        sure: confidence from which a difference is framed.
    """
    confidence = table.pivot(index="layer", columns="position", values="confidence")
    guesses = table.pivot(index="layer", columns="position", values="guess")
    agrees = table.pivot(index="layer", columns="position", values="agrees")
    layers, positions = list(confidence.index), list(confidence.columns)
    tokens = table.drop_duplicates("position").set_index("position")["text"]
    figure = go.Figure(
        go.Heatmap(
            x=positions,
            y=list(range(len(layers))),
            z=confidence.to_numpy(),
            text=[[_short(text) for text in row] for row in guesses.to_numpy()],
            customdata=[[hover_text(text) for text in row] for row in guesses.to_numpy()],
            texttemplate="%{text}",
            textfont={"size": 11},
            colorscale=_SCALE,
            zmin=0,
            zmax=1,
            xgap=1,
            ygap=1,
            colorbar={"title": {"text": "confidence"}, "thickness": 12, "tickformat": ".0%"},
            hovertemplate="says “%{customdata}”, %{z:.0%} sure<extra></extra>",
        )
    )
    wrong = (confidence.to_numpy() >= sure) & ~agrees.to_numpy(dtype=bool)
    for row, column in zip(*wrong.nonzero(), strict=True):
        x, y = positions[column], int(row)
        figure.add_shape(
            type="rect", x0=x - 0.47, x1=x + 0.47, y0=y - 0.44, y1=y + 0.44, line={"color": REJECTED, "width": 3}
        )
    figure.update_layout(
        plain_layout(
            height=90 + 26 * len(layers) + 70,
            title=heading(title),
            margin={"t": 56, "b": 76, "l": 62},
            xaxis=axis(
                "the text so far, a token a column",
                tickvals=positions,
                ticktext=[_short(tokens[position]) for position in positions],
                showgrid=False,
                tickangle=-35,
                tickfont={"color": INK, "size": 12},
            ),
            yaxis=axis(
                "layer", tickvals=list(range(len(layers))), ticktext=[str(layer) for layer in layers], showgrid=False
            ),
        )
    )
    return figure


def _short(text: str) -> str:
    text = text.strip(" ") or "␣"
    return hover_text(text if len(text) <= 9 else text[:8] + "…")
