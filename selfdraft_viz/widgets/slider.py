"""A slider that can be dragged live, typed into, and set from Python without being echoed back."""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from selfdraft_viz.widgets.assets import STATIC


class Slider(anywidget.AnyWidget):
    """A number.

    ipywidgets' own slider rounds to its steps in the browser and sends the value back as if a hand had moved it; this
    one only speaks when it is moved. Its field takes any number, also one past the ends: whoever observes `value`
    judges it.
    """

    _esm = (STATIC / "slider.js").read_text(encoding="utf-8")
    _css = (STATIC / "slider.css").read_text(encoding="utf-8")
    value = traitlets.Float(0.0).tag(sync=True)
    min = traitlets.Float(0.0).tag(sync=True)
    max = traitlets.Float(1.0).tag(sync=True)
    step = traitlets.Float(0.01).tag(sync=True)
    label = traitlets.Unicode("").tag(sync=True)
    spoken = traitlets.Unicode("").tag(sync=True)
    help = traitlets.Unicode("").tag(sync=True)
    vertical = traitlets.Bool(False).tag(sync=True)
    disabled = traitlets.Bool(False).tag(sync=True)
    hidden = traitlets.Bool(False).tag(sync=True)

    def __init__(self, label: str = "", *, spoken: str | None = None, **traits: Any) -> None:
        super().__init__(label=label, spoken=spoken or label, **traits)
