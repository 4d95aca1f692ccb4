"""Pin, save and open: what leaves the explorer, and what comes back."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as ipw

from selfdraft_viz.errors import SettingsError
from selfdraft_viz.settings import Settings
from selfdraft_viz.widgets.download import Download
from selfdraft_viz.widgets.upload import Upload

if TYPE_CHECKING:
    from selfdraft_viz.widgets.explorer import Explorer

_TRACE, _PAGE, _SETTINGS = "selfdraft.parquet", "selfdraft.html", "settings.json"


class FileControls:
    """Args:
        explorer: whose runs and settings they are.
        told: called with the line of Python that does what a control has done.
        failed: called with an exception that an action ended in.

    Attributes:
        box: pin a run, save it, open a saved one.
        settings_box: save and load settings.
    """

    def __init__(self, explorer: Explorer, told: Callable[[str], None], failed: Callable[[Exception], None]) -> None:
        self._explorer, self._told, self._failed = explorer, told, failed
        self.pin = self._button("Pin run", "thumb-tack", "Keep this run to compare with the next", explorer.pin)
        self.unpin = self._button("Unpin all", "times", "Let go of all pinned runs", explorer.unpin)
        self.trace = Download("Save trace", self._trace, failed, "The run's tables as one Parquet file")
        self.page = Download("Save page", self._page, failed, "The views as one HTML file, which opens without Python")
        self.open = Upload("Open trace", ".parquet", self._opened, failed, "Show a saved trace in these views")
        self.save_settings = Download("Save settings", self._settings, failed, "A small JSON file")
        self.load_settings = Upload("Load settings", ".json", self._settings_loaded, failed, "From a JSON file")
        row = {"flex_flow": "row wrap", "align_items": "center"}
        self.box = ipw.HBox([self.pin, self.unpin, self.trace, self.page, self.open], layout=ipw.Layout(**row))
        self.box.add_class("sv-buttons")
        self.settings_box = ipw.HBox([self.save_settings, self.load_settings], layout=ipw.Layout(**row))
        self.settings_box.add_class("sv-buttons")

    def _trace(self) -> tuple[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            data = self._explorer.save(Path(folder) / _TRACE).read_bytes()
        self._told(f'explorer.save("{_TRACE}")')
        return _TRACE, data

    def _page(self) -> tuple[str, bytes]:
        data = self._explorer.page().encode()
        self._told(f'explorer.save("{_PAGE}")')
        return _PAGE, data

    def _settings(self) -> tuple[str, bytes]:
        data = json.dumps(self._explorer.settings.to_dict(), indent=2) + "\n"
        self._told(f'explorer.settings.save("{_SETTINGS}")')
        return _SETTINGS, data.encode()

    def _opened(self, name: str, data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / _TRACE
            path.write_bytes(data)
            self._explorer.open_trace(path)
        self._told(f"explorer.open_trace({name!r})")

    def _settings_loaded(self, name: str, data: bytes) -> None:
        try:
            read = json.loads(data)
        except ValueError as error:
            raise SettingsError(f"{name} is not a JSON file of settings: {error}") from error
        self._explorer.settings = Settings.from_dict(read)
        self._told(f"explorer.settings = sv.Settings.load({name!r})")

    def _button(self, name: str, icon: str, tooltip: str, action: Callable[[], Any]) -> ipw.Button:
        button = ipw.Button(
            description=name, icon=icon, tooltip=tooltip, layout=ipw.Layout(width="128px", height="32px")
        )
        code = f"explorer.{action.__name__}()"

        def pressed(_: Any) -> None:
            try:
                action()
                self._told(code)
            except Exception as error:
                self._failed(error)

        button.on_click(pressed)
        return button
