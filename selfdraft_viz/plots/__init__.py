"""Figures of traces: tables in, a plotly `Figure` out. No torch, no widgets, no model.

import selfdraft_viz as sv
from selfdraft_viz import plots
plots.dashboard(sv.Trace.load("run.parquet")).show()
"""

from selfdraft_viz.plots.dashboard import dashboard
from selfdraft_viz.plots.depth import exit_depth_histogram

__all__ = ["dashboard", "exit_depth_histogram"]
