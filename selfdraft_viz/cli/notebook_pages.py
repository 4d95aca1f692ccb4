"""Notebooks as web pages that open without Python and without a network, figures included.

`jupyter nbconvert --to html` leaves plotly figures out where a notebook keeps them as data, as these do so as to stay
small; and its pages fetch scripts from other hosts.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from selfdraft_viz.errors import LoadError

_FIGURE = "application/vnd.plotly.v1+json"
_WIDGET = "application/vnd.jupyter.widget-view+json"
_SCRIPTS = ("mathjax_url", "require_js_url", "jquery_url", "mermaid_js_url", "widget_renderer_url")


def notebook_page(notebook: Path) -> str:
    """The HTML of an executed notebook: what it says, its code and the outputs that were saved with it.

    Raises:
        LoadError: it is not a notebook.
    """
    import nbformat
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    try:
        content: Any = nbformat.read(notebook, as_version=4)
    except (OSError, ValueError, nbformat.reader.NotJSONError) as error:
        raise LoadError(f"{notebook} cannot be read as a notebook: {error}") from error
    content.metadata.pop("widgets", None)  # their state, which only a script from elsewhere could draw
    for cell in content.cells:
        if cell.cell_type == "code" and cell.metadata.get("jupyter", {}).get("source_hidden"):
            _fold(cell)
    outputs = [output for cell in content.cells for output in cell.get("outputs", [])]
    drawn = 0
    for output in outputs:
        data = output.get("data", {})
        data.pop(_WIDGET, None)  # needs a kernel: its text stands for it
        if _FIGURE in data:
            data["text/html"] = _figure(data.pop(_FIGURE), with_library=drawn == 0)
            drawn += 1
    exporter = HTMLExporter(config=Config(HTMLExporter=dict.fromkeys(_SCRIPTS, "")))
    page, _ = exporter.from_notebook_node(content, {"metadata": {"name": notebook.stem}})
    return page


def _fold(cell: Any) -> None:
    """A code cell that JupyterLab shows folded becomes a piece of text that a browser does."""
    code = html.escape(cell.source)
    cell.source = f"<details><summary>solution</summary><pre><code>{code}</code></pre></details>"
    cell.cell_type = "markdown"
    for part in ("outputs", "execution_count"):
        cell.pop(part, None)


def _figure(figure: dict[str, Any], with_library: bool) -> str:
    from plotly.io import to_html

    shown = {part: figure[part] for part in ("data", "layout", "frames") if part in figure}
    settings = {"displaylogo": False, "responsive": True}
    return to_html(
        shown, config=settings, include_plotlyjs=with_library, full_html=False, auto_play=False, validate=False
    )
