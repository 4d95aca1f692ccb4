"""Whether anybody still looks: a heartbeat from the front end.

Python is not told when an output is cleared or a tab closed. Each view therefore sends a beat every two seconds and a
farewell when it is taken away. Where there never was a view (a script, a test) nothing is missed and nothing stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import anywidget

from selfdraft_viz.widgets.assets import KEEP_KEYS, STATIC

FAREWELL_SECONDS = 2.0
"""After the last view said goodbye: time for another to appear, as when a cell is moved."""
SILENCE_SECONDS = 20.0
"""Without a beat from a page in the foreground."""
HIDDEN_SECONDS = 240.0
"""Without a beat from a page in the background, where browsers slow timers down to one a minute."""

_ESM = (
    KEEP_KEYS
    + """
function render({ model, el }) {
  const view = Math.random().toString(36).slice(2);
  const beat = () => model.send({ type: "beat", view, hidden: document.hidden });
  el.style.display = "none";
  keepKeys(el);
  beat();
  const timer = setInterval(beat, 2000);
  document.addEventListener("visibilitychange", beat);
  return () => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", beat);
    try { model.send({ type: "farewell", view }); } catch (error) { /* the kernel is gone: nothing to tell it */ }
  };
}
export default { render };
"""
)


class Pulse(anywidget.AnyWidget):
    """`wanted()`: a view is there, or there never was one.

    Args:
        listening: says whether messages from the front end can arrive at the moment; silence counts only then.
    """

    _esm = _ESM
    _css = (STATIC / "explorer.css").read_text(encoding="utf-8")

    def __init__(self, listening: Callable[[], bool] = lambda: True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._listening = listening
        self._views: dict[str, tuple[float, bool]] = {}  # last beat, and whether the page was in the background
        self._last_seen: float | None = None  # when the last of all views went
        self.on_msg(self._heard)

    @property
    def seen(self) -> bool:
        """Whether there ever was a view."""
        return bool(self._views) or self._last_seen is not None

    def wanted(self) -> bool:
        now = time.monotonic()
        if not self._listening():
            self._views = {view: (now, hidden) for view, (_, hidden) in self._views.items()}
            return True
        for view, (beat, hidden) in list(self._views.items()):
            if now - beat > (HIDDEN_SECONDS if hidden else SILENCE_SECONDS):
                self._views.pop(view, None)
                self._last_seen = beat
        if self._views or self._last_seen is None:
            return True
        return now - self._last_seen < FAREWELL_SECONDS

    def _heard(self, _: Any, content: Any, __: Any) -> None:
        if not isinstance(content, dict):
            return
        view = str(content.get("view"))
        if content.get("type") == "beat":
            self._views[view] = (time.monotonic(), bool(content.get("hidden")))
        elif content.get("type") == "farewell" and self._views.pop(view, None) is not None and not self._views:
            self._last_seen = time.monotonic()
