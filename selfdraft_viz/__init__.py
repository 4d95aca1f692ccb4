"""selfdraft_viz: a visual explorer of self-draft (self-speculative) decoding, on real models.

    import selfdraft_viz as sv
    model = sv.load()
    trace = model.generate("Once upon a time", sv.Settings(schedule=sv.LinearAnnealing(1.0), threshold=0.6))
    trace.token_ids == model.generate_plain("Once upon a time").token_ids    # always

Names that need torch, plotly or ipywidgets are imported when they are first used, so that traces open without torch
and a bare server decodes without plotly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from selfdraft_viz.errors import (
    HeadsMismatchError,
    LoadError,
    NonFiniteLogitsError,
    PromptError,
    SelfDraftError,
    SettingsError,
    UnsupportedModelError,
)
from selfdraft_viz.openmp import settle as _settle_openmp
from selfdraft_viz.policies import CostAware, PaperBounds, Policy, ProductOfConfidences
from selfdraft_viz.schedules import (
    ConstantTemperature,
    CosineAnnealing,
    ExponentialAnnealing,
    LinearAnnealing,
    NoAnnealing,
    PerLayerTemperature,
    Schedule,
)
from selfdraft_viz.settings import NEVER, Sampling, Settings

__version__ = "0.1.0"

_settle_openmp()

if TYPE_CHECKING:
    from selfdraft_viz.heads import ExitHeads
    from selfdraft_viz.lab.training import train_exit_heads
    from selfdraft_viz.model import Comparison, Model, load
    from selfdraft_viz.trace import Trace, TraceRecorder
    from selfdraft_viz.widgets import Explorer, TraceViewer

_LAZY = {
    "Comparison": "selfdraft_viz.model",
    "ExitHeads": "selfdraft_viz.heads",
    "Explorer": "selfdraft_viz.widgets",
    "Model": "selfdraft_viz.model",
    "Trace": "selfdraft_viz.trace",
    "TraceRecorder": "selfdraft_viz.trace",
    "TraceViewer": "selfdraft_viz.widgets",
    "load": "selfdraft_viz.model",
    "train_exit_heads": "selfdraft_viz.lab.training",
}

__all__ = [
    "NEVER",
    "Comparison",
    "ConstantTemperature",
    "CosineAnnealing",
    "CostAware",
    "ExitHeads",
    "Explorer",
    "ExponentialAnnealing",
    "HeadsMismatchError",
    "LinearAnnealing",
    "LoadError",
    "Model",
    "NoAnnealing",
    "NonFiniteLogitsError",
    "PaperBounds",
    "PerLayerTemperature",
    "Policy",
    "ProductOfConfidences",
    "PromptError",
    "Sampling",
    "Schedule",
    "SelfDraftError",
    "Settings",
    "SettingsError",
    "Trace",
    "TraceRecorder",
    "TraceViewer",
    "UnsupportedModelError",
    "load",
    "train_exit_heads",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
