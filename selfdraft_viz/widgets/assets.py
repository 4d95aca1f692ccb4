"""Files that go to the page, and the style sheet that all widgets share."""

from __future__ import annotations

from pathlib import Path

import anywidget

STATIC = Path(__file__).parent / "static"

KEEP_KEYS = """
// JupyterLab takes arrow keys for its cells; inside the explorer they belong to the sliders and the text.
function keepKeys(el, tries = 20) {
  const explorer = el.closest(".sv-explorer");
  if (explorer) {
    explorer.setAttribute("data-lm-suppress-shortcuts", "true");
    explorer.addEventListener("keydown", (event) => { if (event.key.startsWith("Arrow")) event.stopPropagation(); });
  } else if (tries) setTimeout(() => keepKeys(el, tries - 1), 100);
}
"""


class Styles(anywidget.AnyWidget):
    """Nothing to see: brings the shared style sheet."""

    _esm = KEEP_KEYS + "export default { render({ el }) { el.style.display = 'none'; keepKeys(el); } };"
    _css = (STATIC / "explorer.css").read_text(encoding="utf-8")
