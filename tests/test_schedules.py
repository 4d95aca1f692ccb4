"""Exit temperatures: the formulas, their ends, JSON, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

import selfdraft_viz as sv
from selfdraft_viz.schedules import schedule_from_dict

layer_counts = st.integers(2, 120)
annealing = st.one_of(
    strategies.alphas.map(sv.LinearAnnealing),
    strategies.alphas.map(sv.CosineAnnealing),
    st.builds(sv.ExponentialAnnealing, strategies.alphas, st.floats(5e-324, 100.0)),
)


@given(alpha=strategies.alphas, rate=st.floats(0.01, 30.0), num_layers=layer_counts, data=st.data())
def test_temperatures_are_those_of_the_formulas(
    alpha: float, rate: float, num_layers: int, data: st.DataObject
) -> None:
    """Breaks when a formula is not the one its docstring, and the paper for the linear one, gives."""
    layer = data.draw(st.integers(1, num_layers - 1))
    depth = layer / num_layers
    exponential = (math.exp(-rate * depth) - math.exp(-rate)) / (1 - math.exp(-rate))
    expected = {
        sv.NoAnnealing(): 1.0,
        sv.ConstantTemperature(1.7): 1.7,
        sv.LinearAnnealing(alpha): 1 + alpha * (1 - depth),
        sv.CosineAnnealing(alpha): 1 + alpha * (1 + math.cos(math.pi * depth)) / 2,
        sv.ExponentialAnnealing(alpha, rate): 1 + alpha * exponential,
        sv.PerLayerTemperature({layer: 0.7}): 0.7,
    }
    for schedule, temperature in expected.items():
        assert schedule.temperatures([layer], num_layers) == {layer: pytest.approx(temperature, rel=1e-9)}


@given(schedule=annealing, num_layers=layer_counts)
def test_annealing_ends_at_one_and_runs_one_way(schedule: sv.Schedule, num_layers: int) -> None:
    """Breaks when the last layer's confidence would be changed, or a deeper exit is hotter than a shallower one."""
    temperatures = [schedule.temperature(layer, num_layers) for layer in range(num_layers + 1)]
    assert temperatures[0] == pytest.approx(1 + schedule.alpha)
    assert temperatures[-1] == 1.0
    steps = [b - a for a, b in pairwise(temperatures)]
    assert all(step * schedule.alpha <= 1e-12 for step in steps)
    assert all(math.isfinite(temperature) and temperature > 0 for temperature in temperatures)


@given(alpha=strategies.alphas, num_layers=layer_counts)
def test_a_slow_exponential_is_the_linear_schedule(alpha: float, num_layers: int) -> None:
    """Breaks when small rates lose their digits, as 1 - exp(-rate) does."""
    for layer in range(num_layers):
        linear = sv.LinearAnnealing(alpha).temperature(layer, num_layers)
        assert sv.ExponentialAnnealing(alpha, 1e-12).temperature(layer, num_layers) == pytest.approx(linear, rel=1e-9)


@given(schedule=strategies.schedules((2, 3, 5)))
def test_schedules_survive_json_pickle_and_copy(schedule: sv.Schedule) -> None:
    """Breaks when a saved preset or trace comes back with other temperatures."""
    for again in (
        schedule_from_dict(json.loads(json.dumps(schedule.to_dict()))),
        pickle.loads(pickle.dumps(schedule)),
        copy.deepcopy(schedule),
    ):
        assert again == schedule
        assert hash(again) == hash(schedule)
        assert again.temperatures((2, 3, 5), 8) == schedule.temperatures((2, 3, 5), 8)


@pytest.mark.parametrize("number", [np.float32(1.5), np.float64(1.5), np.int64(2), 2])
def test_numbers_of_numpy_are_numbers(number: float) -> None:
    """Breaks when a value that comes from an array cannot be used or saved."""
    for schedule in (
        sv.ConstantTemperature(number),
        sv.LinearAnnealing(number),
        sv.ExponentialAnnealing(number, number),
        sv.PerLayerTemperature({np.int64(2): number}),
    ):
        assert schedule_from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule


def test_schedules_cannot_be_changed() -> None:
    """Breaks when a schedule in use can change behind the settings' back."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        sv.LinearAnnealing(1.0).alpha = 2.0
    given = {2: 1.5}
    schedule = sv.PerLayerTemperature(given)
    given[2] = 9.0
    assert schedule.temperature(2, 4) == 1.5
    with pytest.raises(TypeError):
        schedule.values[2] = 9.0


class Halving(sv.Schedule):
    """A schedule of one's own that is no dataclass."""

    def __init__(self, start: float) -> None:
        object.__setattr__(self, "start", start)

    def temperature(self, layer: int, num_layers: int) -> float:
        return self.start / 2**layer


def test_schedules_of_ones_own_are_told_apart_by_what_they_hold() -> None:
    """Breaks when two of one class count as equal whatever they hold: the plan of the first would be used for the
    second."""
    first, second = sv.Settings(schedule=Halving(4.0)), sv.Settings(schedule=Halving(8.0))
    assert first != second
    assert first.plan((1, 2), 4).exit_temperatures == {1: 2.0, 2: 1.0}
    assert second.plan((1, 2), 4).exit_temperatures == {1: 4.0, 2: 2.0}
    with pytest.raises(sv.SettingsError, match="PerLayerTemperature"):
        first.to_dict()


@pytest.mark.parametrize("bad", [0, 0.0, -1, math.nan, math.inf, "2", None, True, [1.0], np.array([1.0])])
def test_temperatures_that_are_no_finite_number_above_zero_are_refused(bad: object) -> None:
    """Breaks when a division by zero, or a NaN that fails every comparison, reaches a confidence."""
    for make in (sv.ConstantTemperature, lambda value: sv.PerLayerTemperature({3: value})):
        with pytest.raises(sv.SettingsError, match="finite number above 0") as refused:
            make(bad)
        assert repr(bad) in str(refused.value)
    with pytest.raises(sv.SettingsError, match="exit layer 3"):
        sv.PerLayerTemperature({3: bad})


@pytest.mark.parametrize("bad", [-1, -1.0, -7, math.nan, math.inf, -math.inf, "1", None, True])
def test_annealing_strengths_that_are_no_finite_number_above_minus_one_are_refused(bad: object) -> None:
    """Breaks when a temperature can come out as 0 or negative."""
    for schedule in (sv.LinearAnnealing, sv.CosineAnnealing, sv.ExponentialAnnealing):
        with pytest.raises(sv.SettingsError, match="annealing strength must be a finite number above -1") as refused:
            schedule(bad)
        assert repr(bad) in str(refused.value)


@pytest.mark.parametrize("bad", [0, -1, 101, math.nan, math.inf, "3", None])
def test_exponential_rates_outside_their_range_are_refused(bad: object) -> None:
    """Breaks when exp() under- or overflows, or cools the wrong way."""
    with pytest.raises(sv.SettingsError, match=r"0 < rate <= 100: try 3\.0"):
        sv.ExponentialAnnealing(1.0, bad)


@pytest.mark.parametrize("bad", [{}, None, [1.0], {1.5: 1.0}, {"two": 1.0}, {math.inf: 1.0}, {None: 1.0}, {True: 1.0}])
def test_per_layer_temperatures_need_whole_layers(bad: object) -> None:
    """Breaks when a schedule of nothing, or of layer one and a half, is taken."""
    with pytest.raises(sv.SettingsError, match=r"PerLayerTemperature"):
        sv.PerLayerTemperature(bad)


def test_a_layer_named_twice_is_refused() -> None:
    """Breaks when one of two temperatures for a layer is silently taken: 2 and "2" are one layer in JSON."""
    with pytest.raises(sv.SettingsError, match="exit layer 2 twice"):
        sv.PerLayerTemperature({2: 1.0, "2": 1.5})


def test_an_exit_layer_without_a_temperature_is_refused() -> None:
    """Breaks when an exit in use has no temperature and takes some other one."""
    with pytest.raises(sv.SettingsError, match=r"exit layer 4 has no temperature.*every exit layer"):
        sv.PerLayerTemperature({2: 1.0}).temperatures([2, 4], 8)


def test_a_temperature_of_ones_own_schedule_is_checked() -> None:
    """Breaks when a schedule of one's own can bring in what the others cannot."""
    with pytest.raises(sv.SettingsError, match=r"exit temperature 0\.0 for exit layer 2"):
        Halving(0.0).temperatures([2], 4)
    with pytest.raises(NotImplementedError, match="temperature"):
        sv.Schedule().temperatures([2], 4)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"kind": "quadratic"},
        {"kind": ["linear"]},
        {"alpha": 1.0},
        {"kind": "linear", "beta": 1.0},
        {"kind": "linear", "alpha": "hot"},
        {"kind": "constant", "value": 0},
        {"kind": "per layer"},
        {"kind": "per layer", "values": {"x": 1.0}},
        {"kind": "per layer", "values": 3},
    ],
)
def test_saved_schedules_that_are_damaged_are_refused(data: object) -> None:
    """Breaks when a damaged preset raises something that nobody expects, or is taken."""
    with pytest.raises(sv.SettingsError):
        schedule_from_dict(data)
