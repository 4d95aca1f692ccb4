"""Figures of traces: tables in, a plotly `Figure` out. No torch, no widgets, no model.

import selfdraft_viz as sv
from selfdraft_viz import plots
plots.dashboard(sv.Trace.load("run.parquet")).show()
"""

from selfdraft_viz.plots.dashboard import dashboard
from selfdraft_viz.plots.exits import exits
from selfdraft_viz.plots.replay import events_of
from selfdraft_viz.plots.staircase import staircase

__all__ = ["dashboard", "events_of", "exits", "staircase"]
