"""Exit depth: how many layers each new token's value came from."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from selfdraft_viz.plots.colours import INK, KIND_SYMBOLS, depth_scale
from selfdraft_viz.plots.style import axis, plain_layout
from selfdraft_viz.plots.tables import Table, numbers, words

MARKED_KINDS = ("first", "correction", "bonus")
"""Kinds that get a mark of their own over the bar."""


def depth_traces(num_layers: int) -> list[go.Bar | go.Scatter]:
    """The traces of the view without data: a bar a token, and one trace of marks for each of `MARKED_KINDS`."""
    bars = go.Bar(
        name="exit depth",
        width=1.0,
        marker={"colorscale": depth_scale(), "cmin": 1, "cmax": num_layers, "line": {"width": 0}},
        hovertemplate="position %{x}<br>exit depth: %{y} layers<extra></extra>",
        showlegend=False,
    )
    marks = [
        go.Scatter(
            name=kind,
            mode="markers",
            marker={"symbol": KIND_SYMBOLS[kind], "size": 7, "color": INK, "line": {"width": 0}},
            hovertemplate=f"position %{{x}}<br>{kind}: all {num_layers} layers<extra></extra>",
            legend="legend",
        )
        for kind in MARKED_KINDS
    ]
    return [bars, *marks]


def depth_data(tokens: Table, num_layers: int) -> list[dict[str, Any]]:
    """What `depth_traces` show of a table of new tokens (columns position, kind, exit_depth): properties a trace."""
    position, depth, kind = numbers(tokens, "position"), numbers(tokens, "exit_depth"), words(tokens, "kind")
    new = kind != "prompt"
    position, depth, kind = position[new].astype("int32"), depth[new].astype("int16"), kind[new]
    data: list[dict[str, Any]] = [{"x": position, "y": depth, "marker.color": depth}]
    for marked in MARKED_KINDS:
        at = position[kind == marked]
        data.append({"x": at, "y": np.full(len(at), num_layers * 1.08, dtype="float32")})
    return data


def depth_axis(num_layers: int) -> dict[str, Any]:
    """The axis of layers, with L marked."""
    step = max(1, round(num_layers / 4))
    ticks = [*range(0, num_layers - step // 2, step), num_layers]
    return axis("layers", range=[0, num_layers * 1.18], tickvals=ticks)


def exit_depth_histogram(drafts: Table, tokens: Table, num_layers: int) -> go.Figure:
    """How many committed tokens came from each depth, and how many drafts of that depth were thrown away.

    Args:
        drafts: columns exit_depth, outcome.
        tokens: columns exit_depth, kind.
    """
    kind, depth = words(tokens, "kind"), numbers(tokens, "exit_depth")
    thrown = numbers(drafts, "exit_depth")[words(drafts, "outcome") != "accepted"]
    layers = np.arange(1, num_layers + 1)
    committed = depth[kind != "prompt"]
    figure = go.Figure(
        [
            go.Bar(
                name="committed",
                x=layers,
                y=[int((committed == layer).sum()) for layer in layers],
                marker={"color": layers, "colorscale": depth_scale(), "cmin": 1, "cmax": num_layers},
                hovertemplate="%{y} tokens from depth %{x}<extra>committed</extra>",
            ),
            go.Bar(
                name="drafted, but thrown away",
                x=layers,
                y=[-int((thrown == layer).sum()) for layer in layers],
                customdata=[int((thrown == layer).sum()) for layer in layers],
                marker={
                    "color": "rgba(0,0,0,0)",
                    "line": {"width": 1.5, "color": INK},
                    "pattern": {"shape": "/", "fgcolor": INK},
                },
                hovertemplate="%{customdata} drafts from depth %{x}<extra>thrown away</extra>",
            ),
        ],
        plain_layout(
            title={"text": "Where tokens came from", "x": 0, "xref": "paper"},
            barmode="relative",
            xaxis=axis("exit depth (layers)", range=[0.4, num_layers + 0.6]),
            yaxis=axis("tokens", zeroline=True),
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right"},
        ),
    )
    return figure
