"""The dashboard that follows a running decode: axes that stay, and one patch a frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from selfdraft_viz.plots.dashboard import blank_dashboard, dashboard_data, dashboard_ranges
from selfdraft_viz.plots.pinned import PinnedCurves, fastest_of, pinned_data, pinned_traces
from selfdraft_viz.plots.speed import speed_data
from selfdraft_viz.plots.style import NOTHING
from selfdraft_viz.widgets.live import LiveTables
from selfdraft_viz.widgets.plot_view import PlotView

_SPEED_TRACES = 3
_PINNED_TRACES = len(pinned_traces())
_WARM_UP = 4  # tokens whose speed says nothing yet
_HEADROOM = 1.25  # of the axis of speed over the fastest seen


class LiveDashboard(PlotView):
    """Args:
    exit_layers, num_layers: of the model.
    clicked: called with the position that was clicked.
    """

    def __init__(
        self, exit_layers: Sequence[int], num_layers: int, clicked: Callable[[int], None] | None = None
    ) -> None:
        self._layers = tuple(exit_layers), num_layers
        self._first_position, self._new_tokens, self._widest, self._fastest = 0, 128, 6, 0.0
        self._pins: Sequence[PinnedCurves] = ()
        figure = blank_dashboard(*self._layers, 0, 128)
        self._lines = [shape.to_plotly_json() for shape in figure.layout.shapes]
        super().__init__(
            figure,
            lambda x, y, trace: clicked(round(x)) if clicked else None,
            description="Exit depth, confidence, drafts per round, acceptance rate and speed over positions",
        )

    def set_model(self, exit_layers: Sequence[int], num_layers: int) -> None:
        """Empty, for a model with these layers."""
        self._layers = tuple(exit_layers), num_layers
        figure = blank_dashboard(*self._layers, 0, 128)
        self._lines = [shape.to_plotly_json() for shape in figure.layout.shapes]
        self.set_figure(figure)
        self.pin(self._pins)

    def pin(self, pins: Sequence[PinnedCurves]) -> None:
        """Keep these runs below the live one."""
        self._pins = tuple(pins)
        first_trace = len(self._columns) - _PINNED_TRACES
        if fastest_of(pins) > self._fastest:
            self._fastest = fastest_of(pins) * _HEADROOM
        self.update(pinned_data(pins, self._first_position), self._ranges(), first_trace)

    def start(self, first_position: int, new_tokens: int, widest: int | None) -> None:
        """Empty the views and fix the axes for a decode of up to `new_tokens`, with rounds of up to `widest`."""
        self._first_position, self._new_tokens = first_position, new_tokens
        self._widest = 8 if widest is None else widest
        self._fastest = 0.0
        live = len(self._columns) - _PINNED_TRACES
        self.update([dict(NOTHING) for _ in range(live)], {**self._ranges(), "shapes": self._lines})
        self.pin(self._pins)

    def show(self, tables: LiveTables, plain: LiveTables | None) -> None:
        """Show what has been decoded so far."""
        data = dashboard_data(
            tables.tokens,
            tables.drafts,
            tables.rounds,
            tables.checks,
            *self._layers,
            plain.tokens if plain and plain.new_tokens else None,
        )
        self.update(data, self._stretched(data, tables))

    def select(self, position: int | None) -> None:
        """Frame the column of a position in every view; None = no column."""
        line = {"color": "#ff8c00", "width": 2}
        band = {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "line": line, "layer": "above"}
        ends = [] if position is None else [{**band, "xref": "x", "x0": position - 0.5, "x1": position + 0.5}]
        self.update([], {"shapes": [*self._lines, *ends]})

    def show_speed(self, tables: LiveTables, plain: LiveTables) -> None:
        """Only the speed, while ordinary decoding runs."""
        data = speed_data(tables.tokens, plain.tokens)
        first_trace = len(self._columns) - _PINNED_TRACES - _SPEED_TRACES
        self.update(data, self._stretched(data, tables), first_trace)

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
            self._layers[1], self._first_position, self._new_tokens, self._widest, self._fastest or 50.0
        )
