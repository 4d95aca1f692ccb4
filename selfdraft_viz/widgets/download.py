"""A button that hands a file from the kernel to the browser."""

from __future__ import annotations

from collections.abc import Callable

import anywidget
import traitlets

from selfdraft_viz.widgets.assets import STATIC


class Download(anywidget.AnyWidget):
    """Args:
    label: on the button.
    file: called when it is pressed, returns the file's name and content.
    failed: called with an exception that `file` ended in.
    help: what the button says on hover.
    """

    _esm = (STATIC / "download.js").read_text(encoding="utf-8")
    label = traitlets.Unicode("").tag(sync=True)
    help = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self, label: str, file: Callable[[], tuple[str, bytes]], failed: Callable[[Exception], None], help: str = ""
    ) -> None:
        super().__init__(label=label, help=help)
        self._file, self._failed = file, failed
        self.on_msg(self._heard)

    def _heard(self, _: object, content: object, __: object) -> None:
        if not isinstance(content, dict) or content.get("type") != "wanted":
            return
        try:
            name, data = self._file()
        except Exception as error:
            self._failed(error)
            return
        self.send({"type": "file", "name": name}, [data])
