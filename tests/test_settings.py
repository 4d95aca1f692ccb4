"""Settings and sampling: what fits a model, what is refused and in which words, JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

import selfdraft_viz as sv
from selfdraft_viz.settings import check_exit_layers

EXITS, LAYERS = (2, 4, 6), 8


@given(how=strategies.settings_for(EXITS, LAYERS))
def test_settings_survive_json(how: sv.Settings) -> None:
    """Breaks when a preset, or the settings in a trace, come back as others: `NEVER` among them."""
    assert sv.Settings.from_dict(json.loads(json.dumps(how.to_dict(), allow_nan=False))) == how
    assert hash(sv.Settings.from_dict(how.to_dict())) == hash(how)


@given(how=strategies.settings_for(EXITS, LAYERS))
def test_settings_survive_a_file(how: sv.Settings, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Breaks when `save` and `load` part."""
    path = tmp_path_factory.mktemp("settings") / "preset.json"
    how.save(path)
    assert sv.Settings.load(path) == how


@given(how=strategies.settings_for(EXITS, LAYERS))
def test_a_plan_has_the_exits_in_use_shallow_first_with_their_temperatures(how: sv.Settings) -> None:
    """Breaks when a plan tries an exit that is out of use or too deep, or leaves one out."""
    plan = how.plan(EXITS, LAYERS)
    used = [layer for layer in (how.exit_layers or EXITS) if how.max_depth is None or layer <= how.max_depth]
    assert list(plan.exit_temperatures) == used
    assert plan.exit_temperatures == how.schedule.temperatures(used, LAYERS)
    visited, depth = [], 0
    while (layer := plan.next_exit(depth)) is not None:
        visited.append(layer)
        depth = layer
    assert visited == used
    assert [layer for layer in range(LAYERS) if plan.temperature(layer) is not None] == used


def test_settings_are_frozen_and_replace_gives_another() -> None:
    """Breaks when settings in force can be changed without the decoder seeing it."""
    how = sv.Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        how.threshold = 0.1
    assert how.replace(threshold=0.1) == sv.Settings(threshold=0.1)
    with pytest.raises(sv.SettingsError):
        how.replace(threshold=2)


def test_numbers_of_numpy_are_taken_and_saved() -> None:
    """Breaks when settings that come out of a search over arrays cannot be used or saved."""
    how = sv.Settings(
        threshold=np.float32(0.5), max_depth=np.int64(4), max_width=np.int32(3), exit_layers=np.array([2, 4])
    )
    assert how == sv.Settings(threshold=0.5, max_depth=4, max_width=3, exit_layers=(2, 4))
    json.dumps(how.to_dict())
    sampling = sv.Sampling(temperature=np.float32(0.5), top_p=np.float64(0.5), top_k=np.int64(3), seed=np.int64(7))
    assert sampling == sv.Sampling(temperature=0.5, top_p=0.5, top_k=3, seed=7)
    json.dumps(sampling.to_dict())


@pytest.mark.parametrize("bad", [-0.001, 1.001, 7, -math.inf, math.nan, "0.5", None, True, [0.5]])
def test_a_threshold_outside_0_to_1_is_refused(bad: object) -> None:
    """Breaks when nothing, or everything, exits without a word."""
    with pytest.raises(sv.SettingsError, match=r"threshold.*0\.\.1.*selfdraft_viz\.NEVER") as refused:
        sv.Settings(threshold=bad)
    assert "NaN" in str(refused.value) or repr(bad) in str(refused.value)


@pytest.mark.parametrize("name", ["max_depth", "max_width"])
@pytest.mark.parametrize("bad", [0, -3, 1.5, math.nan, "4", True])
def test_bounds_below_1_are_refused(name: str, bad: object) -> None:
    """Breaks when a bound that can never be met, or is no whole number, is taken."""
    with pytest.raises(sv.SettingsError, match=rf"{name}=.*whole number of at least 1, or None"):
        sv.Settings(**{name: bad})


def test_a_max_depth_past_the_last_exit_is_refused_with_the_range() -> None:
    """Breaks when `max_depth` of the model's own depth, or deeper, is taken."""
    for depth in (8, 9, 1000):
        with pytest.raises(sv.SettingsError, match=rf"max_depth={depth}, but the model has 8 layers: use 1\.\.7"):
            sv.Settings(max_depth=depth).plan(EXITS, LAYERS)
    assert list(sv.Settings(max_depth=7).plan(EXITS, LAYERS).exit_temperatures) == [2, 4, 6]


def test_a_max_depth_below_the_first_exit_in_use_is_refused() -> None:
    """Breaks when a decode is let run in which nothing can ever be drafted."""
    with pytest.raises(sv.SettingsError, match=r"max_depth=1 lies below the first exit layer in use, 2.*use 2\.\.7"):
        sv.Settings(max_depth=1).plan(EXITS, LAYERS)
    with pytest.raises(sv.SettingsError, match=r"max_depth=4 lies below the first exit layer in use, 6.*use 6\.\.7"):
        sv.Settings(max_depth=4, exit_layers=(6,)).plan(EXITS, LAYERS)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([], r"exit_layers is empty: give at least one layer in 1\.\.7"),
        ([0], r"exit layer 0: .* in 1\.\.7, and the model has 8 layers"),
        ([-1, 2], r"exit layer -1: .* in 1\.\.7"),
        ([2, 8], r"exit layer 8: .* in 1\.\.7"),
        ([2, 4, 2], r"exit_layers=\[2, 4, 2\] repeats 2: name each layer once"),
        ([2.0], r"exit layer 2\.0: exit layers are whole numbers"),
        ([True], r"exit layer True: exit layers are whole numbers"),
        (["2"], r"exit layer '2': exit layers are whole numbers"),
        (3, r"exit_layers=3: give a list of layers in 1\.\.7"),
        (None, r"exit_layers=None: give a list of layers in 1\.\.7"),
    ],
)
def test_exit_layers_out_of_range_or_repeated_are_refused(bad: object, words: str) -> None:
    """Breaks when an exit sits at the last layer, at none, or twice at one."""
    with pytest.raises(sv.SettingsError, match=words):
        check_exit_layers(bad, LAYERS)
    with pytest.raises(sv.SettingsError, match=words):
        sv.Settings().plan(bad, LAYERS) if isinstance(bad, list) else check_exit_layers(bad, LAYERS)


@given(layers=st.sets(st.integers(1, 7), min_size=1).map(list))
def test_exit_layers_come_out_shallow_first(layers: list[int]) -> None:
    """Breaks when exits are tried in the order in which they were typed."""
    assert check_exit_layers(layers[::-1], LAYERS) == tuple(sorted(layers))
    assert sv.Settings(exit_layers=layers[::-1]).exit_layers == tuple(sorted(layers))


def test_exits_without_heads_are_refused() -> None:
    """Breaks when settings ask for an exit that the model has no head at."""
    with pytest.raises(sv.SettingsError, match=r"no exit head at 3, 5; it has them at 2, 4, 6"):
        sv.Settings(exit_layers=(2, 3, 5)).plan(EXITS, LAYERS)


def test_schedule_layers_that_the_model_does_not_have_are_refused() -> None:
    """Breaks when a temperature for a layer without an exit is silently without effect."""
    with pytest.raises(sv.SettingsError, match=r"names 3, 99, where .* no exit head: its exit layers are 2, 4, 6"):
        sv.Settings(schedule=sv.PerLayerTemperature({2: 1, 3: 1, 4: 1, 6: 1, 99: 1})).plan(EXITS, LAYERS)
    with pytest.raises(sv.SettingsError, match=r"exit layer 6 has no temperature"):
        sv.Settings(schedule=sv.PerLayerTemperature({2: 1, 4: 1})).plan(EXITS, LAYERS)
    fits = sv.Settings(schedule=sv.PerLayerTemperature({2: 1, 4: 1}), max_depth=5)
    assert list(fits.plan(EXITS, LAYERS).exit_temperatures) == [2, 4]


@pytest.mark.parametrize("bad", [1.0, "linear", None, sv.LinearAnnealing])
def test_a_schedule_must_be_one(bad: object) -> None:
    """Breaks when a number passes for a schedule until the first check."""
    with pytest.raises(sv.SettingsError, match=r"is not a schedule: use NoAnnealing"):
        sv.Settings(schedule=bad)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        *[({"temperature": bad}, "temperature") for bad in (0, 0.0, -1, math.nan, math.inf, "1", None, True)],
        *[({"top_p": bad}, r"top_p.*\(0, 1\]") for bad in (0, -0.1, 1.1, math.nan, "1", True)],
        *[({"top_k": bad}, "top_k=.*whole number of at least 1") for bad in (0, -1, 2.5, "3", True)],
        *[({"seed": bad}, r"seed=.*0\.\.2\*\*63-1") for bad in (-1, 2**63, 1.5, "7", None, True)],
    ],
)
def test_samplings_out_of_range_are_refused(values: dict[str, object], words: str) -> None:
    """Breaks when sampling divides by zero, keeps no token at all, or takes a seed that the noise cannot be keyed
    by."""
    with pytest.raises(sv.SettingsError, match=words):
        sv.Sampling(**values)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"treshold": 0.5}',
        '{"threshold": NaN}',
        '{"threshold": "sometimes"}',
        '{"schedule": {"kind": "cubic"}}',
        '{"schedule": null}',
        '{"exit_layers": 3}',
        '{"exit_layers": ["a"]}',
        '{"max_width": 0}',
        "\udcff",
    ],
)
def test_damaged_settings_files_are_refused(text: str, tmp_path: Path) -> None:
    """Breaks when a damaged preset raises something that nobody expects, or is taken."""
    path = tmp_path / "preset.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(sv.SettingsError):
        sv.Settings.load(path)


def test_a_missing_settings_file_is_named(tmp_path: Path) -> None:
    """Breaks when a mistyped name ends in an error that names no remedy."""
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(sv.SettingsError, match=r"cannot be read \(.*\): give a file that settings\.save\(\) wrote"):
            sv.Settings.load(path)


def test_missing_fields_of_saved_settings_take_their_defaults() -> None:
    """Breaks when a preset written by hand must name everything."""
    assert sv.Settings.from_dict({}) == sv.Settings()
    assert sv.Settings.from_dict({"threshold": "never"}).threshold == sv.NEVER
