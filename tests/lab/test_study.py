"""The whole study in one call, on any supported model; what it says is what its parts say."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic
import tiny
import torch

import selfdraft_viz as sv
from selfdraft_viz.lab.calibration import calibration_table, first_exits
from selfdraft_viz.lab.fitting import fit_temperatures
from selfdraft_viz.lab.replay import replay
from selfdraft_viz.lab.study import THRESHOLDS, annealing_steps, calibration_study, schedules_worth, straightness


@pytest.mark.parametrize("family", ["llama", "gemma3 text capped", "gpt2", "gpt_neox"])
def test_one_call_studies_any_supported_model(family):
    model = tiny.with_random_heads(tiny.load(family, exit_layers=[1, 2, 3]))
    documents = torch.randint(0, tiny.VOCABULARY, (4, 60), generator=torch.Generator().manual_seed(0)).tolist()
    study = calibration_study(model, documents, count=4, window=24, prompt_tokens=8, max_new_tokens=24, progress=False)
    assert set(study.records) == {(heads, text) for heads in ("logit lens", "trained") for text in ("given", "own")}
    assert len(study.calibration) == 2 * 2 * 4 * 3  # heads, texts, schedules, exits
    fitting, judging = study.records["trained", "own"].halves()
    fitted = fit_temperatures(fitting, "agreement")
    assert study.schedules["trained", "own"]["fitted per layer"] == fitted
    mine = study.calibration.query("heads == 'trained' and text == 'own' and schedule == 'fitted per layer'")
    expected = calibration_table(judging, fitted, 0.6)
    np.testing.assert_allclose(mine["ece_plug_in"], expected["ece_plug_in"])
    assert set(study.worth["heads"]) == {"logit lens", "trained"}
    assert study.worth["layer_passes_per_token"].between(1, model.num_layers + 3).all()


def test_a_schedule_is_worth_what_replay_says_at_its_best_threshold():
    fitting, judging = (synthetic.record([1.0, 3.0], texts=5, seed=seed) for seed in (0, 1))
    schedules = {"none": sv.NoAnnealing(), "line": sv.LinearAnnealing(1.0)}
    worth = schedules_worth(fitting, judging, schedules, max_width=4).set_index("schedule")
    for name, schedule in schedules.items():
        settings = [sv.Settings(schedule, threshold, max_width=4) for threshold in THRESHOLDS]
        least = min(replay(fitting, one).layer_passes_per_token for one in settings)
        chosen = sv.Settings(schedule, worth["threshold"][name], max_width=4)
        assert replay(fitting, chosen).layer_passes_per_token == least
        made = replay(judging, chosen)
        assert worth["acceptance_rate"][name] == made.acceptance_rate
        each = [replay(judging.take([text]), chosen).layer_passes_per_token for text in range(5)]
        assert worth["layer_passes_per_token"][name] == pytest.approx(np.mean(each))
    assert worth["saved"]["none"] == 0
    difference = worth["layer_passes_per_token"]["none"] - worth["layer_passes_per_token"]["line"]
    assert worth["saved"]["line"] == pytest.approx(difference)


def test_steps_of_a_slider_are_those_of_each_alpha():
    dense = synthetic.record([1.0, 2.0], texts=4)
    steps = annealing_steps(dense, [0.0, 1.0], threshold=0.5)
    assert list(steps) == [0.0, 1.0]
    exits = first_exits(dense, sv.Settings(sv.LinearAnnealing(1.0), 0.5))
    np.testing.assert_allclose(steps[1.0]["exits"]["share"], exits["share"])
    here = steps[1.0]["curve"].query("threshold == 0.5")
    assert here["coverage"].item() == pytest.approx(exits["share"][:-1].sum())


def test_a_straight_schedule_lies_on_its_line():
    dense = synthetic.record([1.0, 2.0, 3.0], texts=2)
    table = straightness(sv.LinearAnnealing(0.7), dense)
    np.testing.assert_allclose(table["line"], table["temperature"])
    assert table["alpha"][0] == pytest.approx(0.7)
    assert straightness(sv.ConstantTemperature(4.0), dense)["limited"].all()
