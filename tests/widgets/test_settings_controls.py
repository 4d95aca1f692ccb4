"""Controls and settings follow each other, exactly, and refuse what does not fit."""

from __future__ import annotations

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

import selfdraft_viz as sv
from selfdraft_viz.settings import NEVER
from selfdraft_viz.widgets.settings_controls import SettingsControls

LAYERS, NUM_LAYERS = (2, 4, 6, 9), 12


class Panel(SettingsControls):
    """Controls that count what they report."""

    def __init__(self, settings: sv.Settings | None = None) -> None:
        self.changes: list[sv.Settings] = []
        self.messages: list[str] = []
        super().__init__(
            LAYERS,
            NUM_LAYERS,
            settings or sv.Settings(),
            lambda: self.changes.append(self.settings),
            self.messages.append,
        )


@pytest.fixture(scope="module")
def shared() -> Panel:
    return Panel()


@given(settings=strategies.settings_for(LAYERS, NUM_LAYERS))
def test_settings_survive_the_controls_exactly(shared: Panel, settings: sv.Settings) -> None:
    """Breaks when a slider's steps or ends round what was set from Python."""
    shared.changes.clear()
    shared.set(settings)
    assert shared.settings == settings
    assert shared.changes == [], "only a hand reports a change"


@given(settings=strategies.settings_for(LAYERS, NUM_LAYERS))
def test_sliders_stand_at_the_temperatures_of_the_schedule(shared: Panel, settings: sv.Settings) -> None:
    shared.set(settings)
    for layer, temperature in settings.schedule.temperatures(LAYERS, NUM_LAYERS).items():
        assert shared.temperatures[layer].value == temperature


@given(settings=strategies.settings_for(LAYERS, NUM_LAYERS), layer=st.sampled_from(LAYERS), value=st.floats(0.2, 4.9))
def test_dragging_a_temperature_turns_the_schedule_to_per_layer(
    shared: Panel, settings: sv.Settings, layer: int, value: float
) -> None:
    """The other layers keep the temperatures they had."""
    shared.set(settings)
    before = settings.schedule.temperatures(LAYERS, NUM_LAYERS)
    shared.temperatures[layer].value = value
    if value != before[layer]:
        assert shared.schedule.value == "per layer"
        assert shared.settings.schedule == sv.PerLayerTemperature({**before, layer: value})
        assert shared.settings.replace(schedule=settings.schedule) == settings


def test_choosing_a_shape_and_a_strength_moves_the_sliders() -> None:
    panel = Panel(sv.Settings(schedule=sv.NoAnnealing()))
    assert [slider.value for slider in panel.temperatures.values()] == [1, 1, 1, 1]
    for kind, schedule in {
        "linear": sv.LinearAnnealing(2.0),
        "cosine": sv.CosineAnnealing(2.0),
        "exponential": sv.ExponentialAnnealing(2.0, 3.0),
        "constant": sv.ConstantTemperature(3.0),
    }.items():
        panel.schedule.value = kind
        panel.strength.value = 2.0
        assert panel.settings.schedule == schedule
        expected = schedule.temperatures(LAYERS, NUM_LAYERS)
        assert {layer: slider.value for layer, slider in panel.temperatures.items()} == expected
    panel.schedule.value = "none"
    assert panel.settings.schedule == sv.NoAnnealing()


def test_strength_of_a_schedule_drawn_by_hand_starts_a_linear_one() -> None:
    panel = Panel(sv.Settings(schedule=sv.PerLayerTemperature(dict.fromkeys(LAYERS, 1.3))))
    panel.strength.value = 0.25
    assert panel.settings.schedule == sv.LinearAnnealing(0.25)
    assert panel.schedule.value == "linear"


def test_every_control_reaches_its_setting() -> None:
    panel = Panel()
    panel.threshold.value = 0.35
    panel.max_depth.value = 6
    panel.max_width.value = 3
    panel.exits[4].value = False
    assert panel.settings == sv.Settings(threshold=0.35, max_depth=6, max_width=3, exit_layers=(2, 6, 9))
    panel.max_depth.value = panel.max_width.value = 0
    panel.exits[4].value = True
    assert panel.settings == sv.Settings(threshold=0.35, max_depth=None, max_width=None)
    panel.never.value = True
    assert panel.settings.threshold == NEVER
    panel.never.value = False
    assert panel.settings.threshold == 0.35
    assert len(panel.changes) == 9


@pytest.mark.parametrize(
    ("move", "words"),
    [
        (lambda panel: setattr(panel.max_depth, "value", 1), "max_depth=1 lies below the first exit layer in use, 2"),
        (lambda panel: setattr(panel.strength, "value", -2.0), "alpha=-2.0"),
        (lambda panel: setattr(panel.temperatures[4], "value", 0.0), "exit temperature 0.0 for exit layer 4"),
        (lambda panel: setattr(panel.threshold, "value", 1.5), "threshold=1.5"),
        (lambda panel: [setattr(toggle, "value", False) for toggle in panel.exits.values()], "exit_layers is empty"),
    ],
)
def test_what_does_not_fit_is_refused_in_words_and_the_last_valid_settings_stay(move, words: str) -> None:
    panel = Panel()
    before = panel.settings
    move(panel)
    assert words in panel.messages[-1]
    assert panel.settings.replace(exit_layers=None) == before
    panel.threshold.value = 0.5  # the panel goes on, and shows valid settings again
    assert panel.settings.threshold == 0.5
    assert panel.max_depth.value == 0
    assert panel.strength.value == 1.0


def test_settings_from_python_that_do_not_fit_change_nothing() -> None:
    panel = Panel()
    with pytest.raises(sv.SettingsError, match="the model has 12 layers"):
        panel.set(sv.Settings(max_depth=40))
    with pytest.raises(sv.SettingsError, match="give a Settings"):
        panel.set({"threshold": 0.5})  # type: ignore[arg-type]
    assert panel.settings == sv.Settings()


def test_a_schedule_of_ones_own_is_kept() -> None:
    class Steep(sv.Schedule):
        def temperature(self, layer: int, num_layers: int) -> float:
            return 1 + 1 / layer

    panel = Panel()
    settings = sv.Settings(schedule=Steep())
    panel.set(settings)
    assert panel.settings is settings
    assert panel.temperatures[2].value == 1.5
