"""A saved trace in the explorer's views, without a model."""

from __future__ import annotations

from pathlib import Path

import ipywidgets as ipw

from selfdraft_viz.trace import Trace
from selfdraft_viz.widgets.assets import Styles
from selfdraft_viz.widgets.session import Recorded
from selfdraft_viz.widgets.views import Views


class TraceViewer(ipw.VBox):
    """Opens on any machine, a bare one without torch too.

        from selfdraft_viz.widgets import TraceViewer
        TraceViewer("run.parquet")

    Args:
        trace: a `Trace`, or the path of a saved one.

    Raises:
        LoadError: the file cannot be read.
        ValueError: it is a trace of ordinary decoding.
    """

    def __init__(self, trace: Trace | str | Path) -> None:
        self._decode = Recorded(trace if isinstance(trace, Trace) else Trace.load(trace))
        self._views = Views(self._decode.exit_layers, self._decode.num_layers, self._failed)
        self._views.start(self._decode, self._decode.settings)
        self._views.frame(self._decode, True)
        side = ipw.VBox([self._views.side])
        side.add_class("sv-side")
        main = ipw.Box([side, self._views.main])
        main.add_class("sv-main")
        super().__init__([main, Styles()])
        self.add_class("sv-explorer")

    @property
    def trace(self) -> Trace:
        return self._decode.trace

    def select(self, position: int) -> TraceViewer:
        """Select the token at `position` in every view."""
        self._views.select(position)
        return self

    def _failed(self, error: Exception) -> None:
        self._views.readout.error = f"{type(error).__name__}: {error}"
