"""A button that hands a file from the browser to the kernel."""

from __future__ import annotations

from collections.abc import Callable

import anywidget
import traitlets

from selfdraft_viz.widgets.assets import STATIC


class Upload(anywidget.AnyWidget):
    """Args:
    label: on the button.
    accept: the ending of the files to choose from, such as ".json".
    took: called with the file's name and content.
    failed: called with an exception that `took` ended in.
    help: what the button says on hover.
    """

    _esm = (STATIC / "upload.js").read_text(encoding="utf-8")
    label = traitlets.Unicode("").tag(sync=True)
    accept = traitlets.Unicode("").tag(sync=True)
    help = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self,
        label: str,
        accept: str,
        took: Callable[[str, bytes], None],
        failed: Callable[[Exception], None],
        help: str = "",
    ) -> None:
        super().__init__(label=label, accept=accept, help=help)
        self._took, self._failed = took, failed
        self.on_msg(self._heard)

    def _heard(self, _: object, content: object, buffers: list[memoryview]) -> None:
        if not isinstance(content, dict) or content.get("type") != "file" or not buffers:
            return
        try:
            self._took(str(content.get("name")), bytes(buffers[0]))
        except Exception as error:
            self._failed(error)
