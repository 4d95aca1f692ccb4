"""Files that go to the page, and the style sheet that all widgets share."""

from __future__ import annotations

from pathlib import Path

import anywidget

STATIC = Path(__file__).parent / "static"


class Styles(anywidget.AnyWidget):
    """Nothing to see: brings the shared style sheet."""

    _esm = "export default { render({ el }) { el.style.display = 'none'; } };"
    _css = (STATIC / "explorer.css").read_text(encoding="utf-8")
