"""What all figures share: fonts, transparent paper, axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go

from selfdraft_viz.plots.colours import INK

FONT = "Inter, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif"
GRID = "rgba(128, 128, 128, 0.22)"
ZERO = "rgba(128, 128, 128, 0.55)"
NOTHING = {"x": np.array([np.nan], dtype="float32"), "y": np.array([np.nan], dtype="float32")}
"""A trace without points that keeps its place in the legend."""


def plain_layout(**changes: Any) -> go.Layout:
    """A layout without decoration, readable on a light and on a dark page."""
    layout = go.Layout(
        template="none",
        font={"family": FONT, "size": 13, "color": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 62, "r": 16, "t": 34, "b": 46},
        hoverlabel={
            "font": {"family": FONT, "size": 13, "color": "#ffffff"},
            "bgcolor": "#333333",
            "bordercolor": "#888888",
        },
        autosize=True,
    )
    return layout.update(changes)


def margins(**pixels: int) -> dict[str, Any]:
    """Margins that stay as they are: plotly need not find out at every frame whether something hangs over."""
    return {**pixels, "autoexpand": False}


def axis(title: str | None = None, **changes: Any) -> dict[str, Any]:
    """An axis with a quiet grid; `title` carries the unit."""
    return {
        "title": {"text": title, "font": {"size": 13}, "standoff": 8},
        "tickfont": {"size": 13},
        "gridcolor": GRID,
        "zerolinecolor": ZERO,
        "linecolor": ZERO,
        "showline": False,
        "zeroline": False,
        "fixedrange": False,
        "ticklabeloverflow": "allow",  # or every label is measured at every frame
        **changes,
    }


def heading(text: str, size: int = 16, **changes: Any) -> dict[str, Any]:
    """A figure's title, flush left with its axes."""
    return {"text": text, "font": {"size": size}, "x": 0, "xref": "paper", **changes}


def nice_ceiling(value: float) -> float:
    """The next of 1, 2, 3, 5, 10, 20, ... at or above `value` > 0: an upper end for an axis that seldom moves."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 3, 5, 10) if step * power >= value * (1 - 1e-9))
