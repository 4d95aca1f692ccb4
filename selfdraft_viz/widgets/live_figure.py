"""The dashboard as a `FigureWidget` that follows a running decode: one figure, one update a frame, axes that stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.basedatatypes import Undefined

from selfdraft_viz.plots.dashboard import HEIGHT, NOTHING, blank_dashboard, dashboard_data, dashboard_ranges
from selfdraft_viz.plots.speed import speed_data
from selfdraft_viz.widgets.live import LiveTables

_SPEED_TRACES = 3
_WARM_UP = 4  # tokens whose speed says nothing yet
_HEADROOM = 1.25  # of the axis of speed over the fastest seen


class LiveDashboard:
    """Args:
        num_layers: L.

    Attributes:
        figure: the widget.
    """

    def __init__(self, num_layers: int) -> None:
        self._num_layers = num_layers
        self._first_position, self._new_tokens, self._widest, self._fastest = 0, 128, 6, 0.0
        self.figure = go.FigureWidget(blank_dashboard(num_layers, 0, 128))
        self.figure._config = {
            "displaylogo": False,
            "responsive": True,
            "toImageButtonOptions": {"format": "svg", "scale": 2},
        }
        self.figure.layout.height = HEIGHT

    def start(self, first_position: int, new_tokens: int, widest: int | None) -> None:
        """Empty the views and fix the axes for a decode of up to `new_tokens`, with rounds of up to `widest`."""
        self._first_position, self._new_tokens = first_position, new_tokens
        self._widest = 8 if widest is None else widest
        self._fastest = 0.0
        self._send(self._empty(), self._ranges())

    def update(self, tables: LiveTables, plain: LiveTables | None, *, hover: bool) -> None:
        """Show what has been decoded so far; `hover` with what labels say, which costs more to send."""
        data = dashboard_data(
            tables.tokens,
            tables.drafts,
            tables.rounds,
            tables.checks,
            self._num_layers,
            plain.tokens if plain and plain.new_tokens else None,
            hover=hover,
        )
        self._send(data, self._stretched(data, tables))

    def update_speed(self, tables: LiveTables, plain: LiveTables) -> None:
        """Only the speed, while ordinary decoding runs."""
        data = speed_data(tables.tokens, plain.tokens)
        first = len(self.figure.data) - _SPEED_TRACES
        self._send(data, self._stretched(data, tables), first)

    def _stretched(self, data: list[dict[str, Any]], tables: LiveTables) -> dict[str, Any]:
        """Axes again, but only where something does not fit any more."""
        curves = [curve["y"][_WARM_UP:] for curve in data[-_SPEED_TRACES:]]
        fastest = max((float(np.nanmax(curve)) for curve in curves if np.isfinite(curve).any()), default=0.0)
        widest = max(tables.rounds["drafted"], default=0)
        if fastest <= self._fastest and widest <= self._widest:
            return {}
        if fastest > self._fastest:
            self._fastest = fastest * _HEADROOM
        self._widest = max(widest, self._widest)
        return {name: value for name, value in self._ranges().items() if name.startswith("yaxis")}

    def _ranges(self) -> dict[str, Any]:
        return dashboard_ranges(
            self._num_layers, self._first_position, self._new_tokens, self._widest, self._fastest or 50.0
        )

    def _empty(self) -> list[dict[str, Any]]:
        return [dict(NOTHING) for _ in self.figure.data]

    def _send(self, data: list[dict[str, Any]], layout: dict[str, Any], first_trace: int = 0) -> None:
        """One message: the properties of traces from `first_trace` on, and of the layout."""
        names = sorted({name for properties in data for name in properties})
        restyle = {name: [properties.get(name, Undefined) for properties in data] for name in names}
        indexes = list(range(first_trace, first_trace + len(data)))
        self.figure.plotly_update(restyle, layout, indexes)
