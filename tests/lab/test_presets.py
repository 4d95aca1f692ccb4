"""Settings saved by name beside a model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import recorded

import selfdraft_viz as sv
from selfdraft_viz.lab.costs import Costs
from selfdraft_viz.lab.presets import save_preset
from selfdraft_viz.lab.search import Space
from selfdraft_viz.lab.tuning import Tuning, measure_tuning, shipped_tuning, tune


def test_a_preset_is_a_file_of_settings_that_fit(tmp_path: Path) -> None:
    model, settings = recorded.model(), sv.Settings(threshold=0.4, exit_layers=(1, 3))
    path = save_preset(model, "bold, 2 exits", settings, tmp_path / "presets")
    assert path == tmp_path / "presets" / "bold, 2 exits.json"
    assert sv.Settings.load(path) == settings
    assert model.presets["bold, 2 exits"] == settings
    for name in ("", "../up", "a/b", "ends "):
        with pytest.raises(sv.SettingsError, match="preset name"):
            save_preset(model, name, settings, tmp_path)
    with pytest.raises(sv.SettingsError, match="no exit head at 4"):
        save_preset(model, "x", sv.Settings(exit_layers=(4,)), tmp_path)
    with pytest.raises(sv.SettingsError, match="lies in no folder"):
        save_preset(model, "x", settings)


def test_the_searched_presets_come_with_the_embedded_model(embedded: sv.Model) -> None:
    shipped = shipped_tuning("trained")
    assert embedded.preset == shipped.settings[shipped.winner]
    searched = {name for name in embedded.presets if name.endswith(", searched")}
    assert "linear annealing, searched" in searched
    for name in searched:
        assert embedded.presets[name] == shipped.settings[name.removesuffix(", searched")]
    assert shipped_tuning("logit lens").reference == "linear annealing"
    with pytest.raises(sv.LoadError, match="no file"):
        shipped_tuning("other")


def test_tuning_chooses_without_a_look_at_the_held_out_texts(tmp_path: Path) -> None:
    records, costs = recorded.records(texts=4), recorded.costs()
    spaces = {"linear": Space((1, 2, 3), alphas=(0.0, 1.0)), "any": Space((1, 2, 3))}
    told: list[str] = []
    found = tune(records, costs, spaces, trials=15, progress=told.append)
    assert told == [
        "searching: linear",
        "searching: any",
        "searching from the best of all: linear",
        "searching from the best of all: any",
    ]
    assert found.reference == "linear"
    assert found.winner in spaces
    best = found.searched.set_index("name")["predicted"]
    assert best[found.winner] == best.max()
    assert best["any"] >= best["linear"], "the one is in the other"
    assert found.winner in found.verdict()
    assert set(found.predicted_by_kind["kind"]) == {"low", "high"}
    loaded = Tuning.load(found.save(tmp_path / "tuning.json"))
    assert loaded.settings == found.settings
    assert loaded.verdict() == found.verdict()
    assert loaded.measured is None
    measured = measure_tuning(found, recorded.model(), records, texts=1, repeats=1)
    assert measured.measured is not None
    assert set(measured.measured["kind"]) == {"all", "low", "high"}
    assert measured.measured["equal"].all()
    assert measured.predicted.equals(found.predicted)
    again = Tuning.load(measured.save(tmp_path / "tuning.json"))
    assert again.measured is not None
    assert again.measured["name"].tolist() == measured.measured["name"].tolist()
    with pytest.raises(sv.LoadError, match="no file"):
        Tuning.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text('{"format": 1}')
    with pytest.raises(sv.LoadError, match="holds no tuning"):
        Tuning.load(tmp_path / "bad.json")


def test_prices_that_do_not_belong_together_are_refused() -> None:
    good = recorded.costs()
    with pytest.raises(sv.SettingsError, match="fits of shape"):
        dataclasses.replace(good, plain=good.plain[:1])
    assert isinstance(good, Costs)
