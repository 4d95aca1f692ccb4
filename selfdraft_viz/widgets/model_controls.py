"""Which model: the embedded one, or a hub id or folder typed in, loaded in the background."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets as ipw

from selfdraft_viz.errors import SettingsError
from selfdraft_viz.widgets.code_line import literal

if TYPE_CHECKING:
    from selfdraft_viz.model import Model

EMBEDDED = "the embedded model"
_SUGGESTED = (EMBEDDED, "Qwen/Qwen3-0.6B", "HuggingFaceTB/SmolLM2-360M-Instruct", "EleutherAI/pythia-410m")
_AUTO = "automatic"
_BESIDE, _LENS = "trained, beside the model", "logit lens"


class ModelControls:
    """Args:
        loaded: called with the model, and the line of Python that loads it, in the loading thread.
        failed: called with an exception that loading ended in, in that thread too.

    Attributes:
        box: the widget.
    """

    def __init__(self, loaded: Callable[[Model, str], None], failed: Callable[[Exception], None]) -> None:
        self._loaded, self._failed = loaded, failed
        self._thread: threading.Thread | None = None
        self.name = ipw.Combobox(
            value=EMBEDDED, options=_SUGGESTED, description="model", placeholder="hub id or folder",
            layout=ipw.Layout(width="360px"), style=_narrow(), tooltip="A Hugging Face hub id, or a folder",
        )  # fmt: skip
        self.device = ipw.Dropdown(
            options=[_AUTO, *devices()], description="device", layout=ipw.Layout(width="190px"), style=_narrow()
        )
        self.dtype = ipw.Dropdown(
            options=[_AUTO, "float32", "bfloat16", "float16", "float64"], description="dtype",
            layout=ipw.Layout(width="190px"), style=_narrow(),
        )  # fmt: skip
        self.heads = ipw.Combobox(
            value=_BESIDE, options=[_BESIDE, _LENS], description="exit heads", layout=ipw.Layout(width="330px"),
            style={"description_width": "78px"}, tooltip="Trained heads, the logit lens, or a path or hub id of heads",
        )  # fmt: skip
        self.exit_layers = ipw.Text(
            description="exit layers", placeholder="as the heads have them: 2 4 6", layout=ipw.Layout(width="330px"),
            style={"description_width": "78px"},
        )  # fmt: skip
        self.button = ipw.Button(description="Load", icon="download", layout=ipw.Layout(width="112px", height="34px"))
        self.button.on_click(lambda _: self.load())
        self.bar = ipw.FloatProgress(value=0.0, min=0.0, max=1.0, layout=ipw.Layout(width="260px", visibility="hidden"))
        self.doing = ipw.Label("")
        rows = [
            ipw.HBox([self.name, self.device, self.dtype], layout=_row()),
            ipw.HBox([self.heads, self.exit_layers], layout=_row()),
            ipw.HBox([self.button, self.bar, self.doing], layout=_row()),
        ]
        self.box = ipw.VBox(rows)

    @property
    def loading(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def load(self) -> None:
        """Load what the controls say, in a thread of its own."""
        if self.loading:
            return
        try:
            arguments = self.arguments()
        except SettingsError as error:
            self._failed(error)
            return
        self.button.disabled = True
        self.bar.value, self.bar.layout.visibility = 0.0, "visible"
        self.doing.value = "reading the configuration"
        self._thread = threading.Thread(target=self._load, args=(arguments,), name="selfdraft-load", daemon=True)
        self._thread.start()

    def wait(self, timeout: float | None = None) -> None:
        """Until a model that is being loaded is there, or has failed."""
        if self._thread is not None:
            self._thread.join(timeout)

    def arguments(self) -> dict[str, Any]:
        """What to call `selfdraft_viz.load` with.

        Raises:
            SettingsError: the exit layers are no list of whole numbers.
        """
        name, heads, layers = self.name.value.strip(), self.heads.value.strip(), self.exit_layers.value.strip()
        arguments: dict[str, Any] = {} if name in ("", EMBEDDED) else {"name": name}
        if self.device.value != _AUTO:
            arguments["device"] = self.device.value
        if self.dtype.value != _AUTO:
            arguments["dtype"] = self.dtype.value
        if layers:
            try:
                arguments["exit_layers"] = [int(layer) for layer in re.split(r"[\s,]+", layers) if layer]
            except ValueError:
                raise SettingsError(f"exit layers {layers!r}: give whole numbers, such as 2 4 6") from None
        if heads not in ("", _BESIDE):
            arguments["heads"] = heads
        return arguments

    def _load(self, arguments: dict[str, Any]) -> None:
        from selfdraft_viz.model import load

        try:
            model = load(**arguments, progress=self._progress)
            named = [f"{key}={literal(value)}" for key, value in arguments.items() if key != "name"]
            given = [literal(arguments["name"])] if "name" in arguments else []
            self._loaded(model, f"explorer.model = sv.load({', '.join([*given, *named])})")
        except Exception as error:
            self._failed(error)
        finally:
            self.bar.layout.visibility = "hidden"
            self.doing.value = ""
            self.button.disabled = False

    def _progress(self, what: str, done: float, total: float | None) -> None:
        self.doing.value = what.lower()
        if total:
            self.bar.value = done / total


def devices() -> list[str]:
    """Devices that torch sees here."""
    import torch

    return ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]


def _narrow() -> dict[str, str]:
    return {"description_width": "58px"}


def _row() -> ipw.Layout:
    return ipw.Layout(flex_flow="row wrap", align_items="center")
