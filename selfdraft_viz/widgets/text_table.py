"""A table of plain texts."""

from __future__ import annotations

import anywidget
import traitlets

from selfdraft_viz.widgets.assets import STATIC


class TextTable(anywidget.AnyWidget):
    """Attributes: caption; columns, their names; rows, lists of texts; note, below. Shown as text, never as markup."""

    _esm = (STATIC / "table.js").read_text(encoding="utf-8")
    _css = (STATIC / "table.css").read_text(encoding="utf-8")
    caption = traitlets.Unicode("").tag(sync=True)
    note = traitlets.Unicode("").tag(sync=True)
    columns: traitlets.List = traitlets.List().tag(sync=True)
    rows: traitlets.List = traitlets.List().tag(sync=True)
