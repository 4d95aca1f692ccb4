"""The live explorer: controls, views, and the decode that runs behind them."""

from selfdraft_viz.widgets.explorer import Explorer
from selfdraft_viz.widgets.viewer import TraceViewer

__all__ = ["Explorer", "TraceViewer"]
