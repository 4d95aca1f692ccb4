"""A plotly figure on the page that a running decode can feed.

Not a `FigureWidget`, and this is why. Every FigureWidget carries plotly.js in its state (5 MB each), needs four
messages for an update, sends every column whole, and its front end answers each update with what it computed from it,
which the kernel has to read: time taken from the decode. Here an update is one message with the tails of the columns
that have grown, nothing comes back but clicks, and plotly.js is sent once a page.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import plotly
import plotly.graph_objects as go
import traitlets

from selfdraft_viz.widgets.assets import STATIC

CONFIG = {
    "displaylogo": False,
    "responsive": False,
    "toImageButtonOptions": {"format": "svg", "filename": "selfdraft"},
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}


class PlotView(anywidget.AnyWidget):
    """Args:
        figure: what to show at first; its traces stay, in number and order.
        clicked: called with (x, y, index of the trace) of a point that was clicked.

    A front end that appears later, or again, asks for everything and gets it.
    """

    _esm = (STATIC / "plot.js").read_text(encoding="utf-8")
    height = traitlets.Int(400).tag(sync=True)
    description = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self, figure: go.Figure, clicked: Callable[[Any, Any, int], None] | None = None, **traits: Any
    ) -> None:
        super().__init__(height=int(figure.layout.height or 400), **traits)
        self._lock = threading.RLock()  # a front end may ask while a run draws
        self._clicked = clicked
        self._columns: list[dict[str, Any]] = []
        self._layout: dict[str, Any] = {}
        self.on_msg(self._heard)
        self.set_figure(figure)

    def set_figure(self, figure: go.Figure) -> None:
        """Show another figure in place of this one."""
        with self._lock:
            self._figure = figure
            self._columns = [{} for _ in figure.data]
            self._layout = {}
            self._send_all()

    def update(
        self,
        data: Sequence[dict[str, Any]],
        layout: dict[str, Any] | None = None,
        first_trace: int = 0,
        *,
        axes_stay: bool = False,
    ) -> None:
        """Set properties of traces, and of the layout, by path.

        Args:
            data: a dict a trace, such as `{"x": array, "marker.color": array}`. Arrays have one dimension. Of arrays
                and lists only what follows the first change is sent.
            layout: such as `{"xaxis.range": [0, 10]}`.
            first_trace: the trace that `data` begins with.
            axes_stay: only points move, within the axes: drawn without the rest of the figure, several times faster.
        """
        with self._lock:
            patches: list[dict[str, Any]] = []
            buffers: list[Any] = []
            for index, properties in enumerate(data, start=first_trace):
                known = self._columns[index]
                for path, value in properties.items():
                    old = known.get(path)
                    if isinstance(value, np.ndarray):
                        start = _shared(old, value)
                        if start < 0:
                            continue
                        patches.append(_column(index, path, value, start, buffers))
                    elif isinstance(value, list):
                        start = _common(old, value) if isinstance(old, list) else 0
                        if isinstance(old, list) and start == len(old) == len(value):
                            continue
                        patches.append({"trace": index, "path": path, "start": start, "values": value[start:]})
                    elif isinstance(old, np.ndarray) or path not in known or old != value:
                        patches.append({"trace": index, "path": path, "value": value})
                    else:
                        continue
                    # its owner may change it
                    known[path] = value.copy() if isinstance(value, np.ndarray | list) else value
            changed = {path: value for path, value in (layout or {}).items() if self._layout.get(path) != value}
            self._layout.update(changed)
            if patches or changed:
                message = {"type": "patch", "traces": patches, "layout": changed}
                self.send({**message, "axes_stay": True} if axes_stay else message, buffers)

    def snapshot(self) -> go.Figure:
        """What is shown at the moment, as a figure of its own."""
        figure = go.Figure(self._figure)
        for trace, columns in zip(figure.data, self._columns, strict=True):
            for path, value in columns.items():
                trace[path] = value
        for path, value in self._layout.items():
            figure.layout[path] = value
        return figure

    def _send_all(self) -> None:
        patches: list[dict[str, Any]] = []
        buffers: list[Any] = []
        for index, columns in enumerate(self._columns):
            for path, value in columns.items():
                if isinstance(value, np.ndarray):
                    patches.append(_column(index, path, value, 0, buffers))
                elif isinstance(value, list):
                    patches.append({"trace": index, "path": path, "start": 0, "values": value})
                else:
                    patches.append({"trace": index, "path": path, "value": value})
        figure = {**json.loads(self._figure.to_json()), "config": CONFIG}
        self.send({"type": "figure", "figure": figure, "traces": patches, "layout": self._layout}, buffers)

    def _heard(self, _: Any, content: Any, __: Any) -> None:
        kind = content.get("type") if isinstance(content, dict) else None
        if kind == "ready":
            with self._lock:
                self._send_all()
        elif kind == "plotly":
            self.send({"type": "plotly", "source": _plotly_source()})
        elif kind == "click" and self._clicked is not None:
            self._clicked(content.get("x"), content.get("y"), content.get("trace", 0))


def _shared(old: Any, new: np.ndarray) -> int:
    """How many leading values `new` shares with `old`, which the front end still has; -1 where nothing has changed."""
    if not isinstance(old, np.ndarray) or old.dtype != new.dtype:
        return 0
    count = min(len(old), len(new))
    same = (old[:count] == new[:count]) | ((old[:count] != old[:count]) & (new[:count] != new[:count]))
    if same.all():
        return -1 if len(old) == len(new) else count
    return int(same.argmin())


def _common(old: list[Any], new: list[Any]) -> int:
    """How many leading values two lists share."""
    pairs = enumerate(zip(old, new, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(old), len(new)))


def _column(trace: int, path: str, values: np.ndarray, start: int, buffers: list[Any]) -> dict[str, Any]:
    buffers.append(np.ascontiguousarray(values[start:]).tobytes())
    return {"trace": trace, "path": path, "start": start, "dtype": _name(values.dtype), "buffer": len(buffers) - 1}


@cache
def _name(dtype: np.dtype) -> str:
    return dtype.name


@cache
def _plotly_source() -> str:
    return (Path(plotly.__file__).parent / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
