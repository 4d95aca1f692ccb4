"""The speed bench as a figure: each way of decoding against one of them, by kind of text."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from selfdraft_viz.plots.colours import ACCEPTED, DROPPED, INK, NEUTRAL, REJECTED, depth_colour
from selfdraft_viz.plots.style import axis, heading, plain_layout
from selfdraft_viz.plots.tables import Table
from selfdraft_viz.plots.text import hover_text

_LOOKS = {
    "transformers": (NEUTRAL, "circle-open"),
    "early-exit": (DROPPED, "diamond"),
    "prompt-lookup": (REJECTED, "square"),
    "plain": (depth_colour(5, 16), "triangle-up"),
    "self-draft": (ACCEPTED, "circle"),
}


def bench_figure(summary: Table, titles: dict[str, str], against: str = "transformers") -> go.Figure:
    """Speed ratios with their quartiles; right of the line at 1 is faster than `against`.

    Args:
        summary: `BenchReport.summary()`. titles: by contender, its name in the legend. against: "transformers" or
            "plain".
    """
    name = f"speed_to_{against}"
    rows: list[dict[str, Any]] = [
        row for row in _rows(summary) if row["contender"] != against and row[name] == row[name]
    ]
    keys = list(dict.fromkeys(row["contender"] for row in rows))
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    height = 150 + 32 * len(rows)
    figure = go.Figure(layout=plain_layout(height=height, margin={"l": 80, "r": 24, "t": 84, "b": 52}))
    for place, key in enumerate(keys):
        own = [row for row in rows if row["contender"] == key]
        colour, symbol = _LOOKS.get(key, (INK, "x"))
        offset = (len(keys) - 1) / 2 - place
        figure.add_scatter(
            name=hover_text(titles.get(key, key)),
            mode="markers+text",
            x=[row[name] for row in own],
            y=[len(kinds) - 1 - kinds.index(row["kind"]) + 0.8 * offset / max(1, len(keys)) for row in own],
            error_x={
                "symmetric": False,
                "array": [row[f"{name}_high"] - row[name] for row in own],
                "arrayminus": [row[name] - row[f"{name}_low"] for row in own],
                "color": colour,
                "thickness": 1.5,
            },
            text=[f"{row[name]:.2f}" for row in own],
            textposition="top center",
            textfont={"size": 11},
            cliponaxis=False,
            marker={"color": colour, "symbol": symbol, "size": 10, "line": {"color": colour, "width": 2}},
            hovertemplate="%{x:.2f}x<extra>%{fullData.name}</extra>",
        )
    figure.add_vline(x=1, line={"color": INK, "dash": "dash", "width": 1.5})
    figure.update_layout(
        title=heading(
            f"Speed against {hover_text(titles.get(against, against))}: right of the line is faster",
            15,
            y=1 - 14 / height,
            yanchor="top",
        ),
        xaxis=axis("times as fast (median of paired ratios, bars: quartiles)", rangemode="tozero"),
        yaxis=axis(None, tickvals=[len(kinds) - 1 - i for i in range(len(kinds))], ticktext=kinds, showgrid=False),
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0},
    )
    return figure


def floor_figure(floor: dict[str, Any]) -> go.Figure:
    """Where the time of an ordinary token goes, beside the time in which its weights could be read.

    Args:
        floor: `Floor.to_dict()`.
    """
    parts = {name: 1000 * seconds for name, seconds in floor["parts"].items()}
    colours = [depth_colour(3, 16), depth_colour(13, 16), ACCEPTED, DROPPED]
    patterns = ["", "/", "", "x"]
    figure = go.Figure(layout=plain_layout(height=230, barmode="stack", margin={"l": 110, "r": 24, "t": 74, "b": 50}))
    figure.add_bar(
        y=["floor"], x=[1000 * floor["seconds"]], orientation="h", name="reading the weights", marker={"color": NEUTRAL}
    )
    for (name, milliseconds), colour, pattern in zip(parts.items(), colours, patterns, strict=True):
        figure.add_bar(
            y=["a token"],
            x=[milliseconds],
            orientation="h",
            name=name,
            marker={"color": colour, "pattern": {"shape": pattern}},
            hovertemplate="%{x:.3f} ms<extra>%{fullData.name}</extra>",
        )
    figure.update_layout(
        title=heading(f"An ordinary token takes {floor['distance']:.1f} times its floor", 15),
        xaxis=axis("milliseconds"),
        yaxis=axis(None, showgrid=False, autorange="reversed"),
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    return figure


def _rows(table: Table) -> list[dict[str, Any]]:
    names = list(table.keys())
    columns = [list(table[name]) for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
