"""Controls of a `Settings`: whatever a slider does, setting the value from Python does too, and both show it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as ipw

from selfdraft_viz.errors import SettingsError
from selfdraft_viz.schedules import (
    ConstantTemperature,
    CosineAnnealing,
    ExponentialAnnealing,
    LinearAnnealing,
    NoAnnealing,
    PerLayerTemperature,
    Schedule,
)
from selfdraft_viz.settings import NEVER, Settings
from selfdraft_viz.widgets.slider import Slider

NO_BOUND = ("no bound", 0)
"""As an option of a slider; a slider cannot have None."""
_OWN = "your own"
_KINDS = ("none", "constant", "linear", "cosine", "exponential", "per layer")
_WITH_STRENGTH = (ConstantTemperature, LinearAnnealing, CosineAnnealing, ExponentialAnnealing)


class SettingsControls:
    """Two-way controls. `settings` is the truth; the controls show it.

    Args:
        exit_layers: the model's exit layers.
        num_layers: L.
        settings: to start with; must fit the model.
        changed: called after a control has changed `settings`.
        refused: called with the message where what the controls say is no valid setting; `settings` stays as it was.
        presets: settings by name, to choose from.

    Attributes:
        box: the widget that holds them all.
    """

    def __init__(
        self,
        exit_layers: Sequence[int],
        num_layers: int,
        settings: Settings,
        changed: Callable[[], None],
        refused: Callable[[str], None],
        presets: Mapping[str, Settings] | None = None,
    ) -> None:
        self._presets = dict(presets or {})
        self._exit_layers = tuple(exit_layers)
        self._num_layers = num_layers
        self._changed = changed
        self._refused = refused
        self._lock = threading.RLock()  # messages of the front end may come on another thread
        self._showing = False
        self._settings = settings
        self._build()
        self.set(settings)

    @property
    def settings(self) -> Settings:
        return self._settings

    def set(self, settings: Settings) -> None:
        """Take over `settings` and move every control to them.

        Raises:
            SettingsError: they do not fit the model; nothing has changed then.
        """
        if not isinstance(settings, Settings):
            raise SettingsError(f"settings={settings!r}: give a Settings")
        settings.plan(self._exit_layers, self._num_layers)
        with self._lock:
            self._settings = settings
            self._show()

    def _build(self) -> None:
        self.preset = ipw.Dropdown(
            options=[_OWN, *self._presets], description="preset", tooltip="Settings by name", **_wide()
        )
        self.preset.observe(self._preset_chosen, "value")
        self.schedule = ipw.Dropdown(
            options=_KINDS, description="schedule", tooltip="How the exit temperature falls with depth", **_wide()
        )
        self.strength = Slider(
            "strength α", spoken="annealing strength", value=1.0, min=-0.9, max=4.0,
            help="Annealing strength: 0 is no annealing, 1 doubles the temperature at depth 0",
        )  # fmt: skip
        self.rate = Slider(
            "rate", value=3.0, min=0.1, max=10.0, step=0.1, help="How quickly the exponential schedule cools"
        )
        self.temperatures = {
            layer: Slider(
                f"T{_subscript(layer)}", spoken=f"exit temperature after {layer} layers", min=0.1, max=5.0,
                vertical=True,
                help=f"Exit temperature after {layer} layers; drag to draw a schedule of your own",
            )
            for layer in self._exit_layers
        }  # fmt: skip
        self.exits = {
            layer: ipw.ToggleButton(
                description=f"{layer}", tooltip=f"Try the exit after {layer} layers",
                layout=ipw.Layout(width="40px", height="26px", margin="2px 6px 0 6px", padding="0"),
            )
            for layer in self._exit_layers
        }  # fmt: skip
        self.threshold = Slider("threshold", help="A position exits where its confidence reaches this")
        self.never = ipw.Checkbox(description="never exit", indent=False, layout=ipw.Layout(width="auto"))
        depths = [(str(depth), depth) for depth in range(1, self._num_layers)]
        self.max_depth = ipw.SelectionSlider(
            options=[*depths, NO_BOUND],
            description="max_depth",
            tooltip="The deepest exit that is tried, in layers",
            **_wide(),
        )
        self.max_width = ipw.SelectionSlider(
            options=_widths(None), description="max_width", tooltip="The most tokens drafted in a round", **_wide()
        )
        for control in (
            self.schedule,
            self.strength,
            self.rate,
            self.threshold,
            self.never,
            self.max_depth,
            self.max_width,
        ):
            control.observe(self._moved, "value")
        for control in (*self.temperatures.values(), *self.exits.values()):
            control.observe(self._moved, "value")
        columns = [
            ipw.VBox(
                [self.temperatures[layer], self.exits[layer]],
                layout=ipw.Layout(align_items="center", overflow="visible"),
            )
            for layer in self._exit_layers
        ]
        temperatures = ipw.HBox(columns, layout=ipw.Layout(overflow="auto hidden", min_height="212px"))
        caption = ipw.HTML("Exit temperature T by exit layer; a button below switches the exit off")
        caption.add_class("sv-caption")
        temperatures.add_class("sv-temperatures")
        self.box = ipw.VBox(
            [
                self.preset,
                self.schedule,
                self.strength,
                self.rate,
                caption,
                temperatures,
                self.threshold,
                self.never,
                self.max_depth,
                self.max_width,
            ]
        )

    def _show(self) -> None:
        settings = self._settings
        schedule = settings.schedule
        self._showing = True
        try:
            self.schedule.value = schedule.kind if schedule.kind in _KINDS else "per layer"
            if isinstance(schedule, _WITH_STRENGTH):
                strength = schedule.value - 1 if isinstance(schedule, ConstantTemperature) else schedule.alpha
                self.strength.value = strength
            self.rate.hidden = not isinstance(schedule, ExponentialAnnealing)
            if isinstance(schedule, ExponentialAnnealing):
                self.rate.value = schedule.rate
            for layer, value in self._exit_temperatures().items():
                self.temperatures[layer].value = value
            used = self._exit_layers if settings.exit_layers is None else settings.exit_layers
            for layer, toggle in self.exits.items():
                toggle.value = layer in used
                toggle.icon = ""
                toggle.button_style = "info" if toggle.value else ""
            self.never.value = settings.threshold == NEVER
            self.threshold.disabled = self.never.value
            if not self.never.value:
                self.threshold.value = settings.threshold
            self.max_depth.value = settings.max_depth or 0
            if (settings.max_width or 0) not in [value for _, value in self.max_width.options]:
                self.max_width.options = _widths(settings.max_width)
            self.max_width.value = settings.max_width or 0
            self.preset.value = next((name for name, known in self._presets.items() if known == settings), _OWN)
        finally:
            self._showing = False

    def _preset_chosen(self, change: Any) -> None:
        with self._lock:
            if self._showing or change.new not in self._presets:
                return
            self._settings = self._presets[change.new]
            self._show()
            self._changed()

    def _moved(self, change: Any) -> None:
        with self._lock:
            if self._showing:
                return
            try:
                settings = self._read(change.owner)
                settings.plan(self._exit_layers, self._num_layers)
            except SettingsError as error:
                self._refused(str(error))
                return
            self._settings = settings
            self._show()
            self._changed()

    def _read(self, control: Any) -> Settings:
        """The settings in force with what `control` now says. Everything else stays exactly as it was."""
        settings = self._settings
        if control is self.schedule:
            return settings.replace(schedule=self._schedule(control.value))
        if control in (self.strength, self.rate):
            kind = self.schedule.value
            return settings.replace(schedule=self._schedule("linear" if kind in ("none", "per layer") else kind))
        if control in (self.threshold, self.never):
            return settings.replace(threshold=NEVER if self.never.value else self.threshold.value)
        if control is self.max_depth:
            return settings.replace(max_depth=control.value or None)
        if control is self.max_width:
            return settings.replace(max_width=control.value or None)
        if control in self.exits.values():
            used = tuple(layer for layer, toggle in self.exits.items() if toggle.value)
            return settings.replace(exit_layers=None if used == self._exit_layers else used)
        values = self._exit_temperatures()
        for layer, slider in self.temperatures.items():
            if slider is control or layer not in values:
                values[layer] = slider.value
        return settings.replace(schedule=PerLayerTemperature(values))

    def _schedule(self, kind: str) -> Schedule:
        strength = self.strength.value
        if kind == "none":
            return NoAnnealing()
        if kind == "constant":
            return ConstantTemperature(1.0 + strength)
        if kind == "linear":
            return LinearAnnealing(strength)
        if kind == "cosine":
            return CosineAnnealing(strength)
        if kind == "exponential":
            return ExponentialAnnealing(strength, self.rate.value)
        return PerLayerTemperature(
            {layer: slider.value for layer, slider in self.temperatures.items()} | self._exit_temperatures()
        )

    def _exit_temperatures(self) -> dict[int, float]:
        """T_l at every exit layer that the schedule speaks of, whether in use or not."""
        schedule = self._settings.schedule
        layers = self._exit_layers
        if isinstance(schedule, PerLayerTemperature):
            layers = tuple(layer for layer in layers if layer in schedule.values)
        return schedule.temperatures(layers, self._num_layers)


def _widths(also: int | None) -> list[tuple[str, int]]:
    widths = sorted({*range(1, 17), *([] if also is None else [also])})
    return [*((str(width), width) for width in widths), NO_BOUND]


def _wide() -> dict[str, Any]:
    return {"layout": ipw.Layout(width="auto"), "style": {"description_width": "92px"}}


def _subscript(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
