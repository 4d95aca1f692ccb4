"""Words that explain themselves, on hover and on focus."""

from __future__ import annotations

import anywidget
import traitlets

from selfdraft_viz.glossary import explain
from selfdraft_viz.widgets.assets import STATIC


class Terms(anywidget.AnyWidget):
    """A line of terms of the glossary.

    Attributes:
        terms: (term, explanation) pairs.
    """

    _esm = (STATIC / "terms.js").read_text(encoding="utf-8")
    _css = (STATIC / "terms.css").read_text(encoding="utf-8")
    terms: traitlets.List = traitlets.List().tag(sync=True)

    def __init__(self, *terms: str) -> None:
        super().__init__(terms=explain(*terms))
