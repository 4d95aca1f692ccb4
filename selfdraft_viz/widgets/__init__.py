"""The live explorer: controls, views, and the decode that runs behind them."""

from selfdraft_viz.widgets.explorer import Explorer

__all__ = ["Explorer"]
