"""Fitted schedules find temperatures that are known, and do not look at the rows that they should not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import synthetic

import selfdraft_viz as sv
from selfdraft_viz.lab.calibration import calibration_table
from selfdraft_viz.lab.fitting import fit_linear, fit_temperatures, negative_log_likelihood


@pytest.mark.parametrize("objective", ["token", "agreement"])
def test_logits_scaled_by_k_are_mended_by_temperature_k(objective):
    scales = [3.0, 1.7, 1.0, 0.6]
    fitted = fit_temperatures(synthetic.record(scales, texts=150), objective)
    assert isinstance(fitted, sv.PerLayerTemperature)
    assert list(fitted.values.values()) == pytest.approx(scales, rel=0.1)
    judged = calibration_table(synthetic.record(scales, texts=100, seed=1), fitted)
    assert (judged["ece"] < 0.02).all()


@pytest.mark.parametrize("alpha", [1.5, -0.4])
def test_exits_that_are_hot_along_a_line_give_its_alpha(alpha):
    num_layers = 10
    scales = [1 + alpha * (1 - layer / num_layers) for layer in (1, 2, 3, 4)]
    fitted = fit_linear(synthetic.record(scales, texts=150))
    assert fitted.alpha == pytest.approx(alpha, abs=0.1)


def test_no_other_temperature_is_likelier():
    dense = synthetic.record([2.0, 1.2])
    for objective in ("token", "agreement"):
        fitted = fit_temperatures(dense, objective)
        least = negative_log_likelihood(dense, fitted, objective)
        for factor in (0.95, 1.05):
            moved = sv.PerLayerTemperature({layer: value * factor for layer, value in fitted.values.items()})
            other = negative_log_likelihood(dense, moved, objective)
            assert all(least[layer] < other[layer] for layer in least)


def test_the_loss_is_that_of_the_logits():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(4, 25, 1, 9)) * 3
    true_ids = rng.integers(0, 9, (4, 25))
    dense = synthetic.of_logits(logits, true_ids, [2], 4)
    scaled = logits[:, :, 0] / 1.7
    normal = np.log(np.exp(scaled).sum(axis=-1))
    token = (normal - np.take_along_axis(scaled, true_ids[..., None], axis=-1)[..., 0]).mean()
    sure, right = np.exp(scaled.max(axis=-1) - normal), scaled.argmax(axis=-1) == true_ids
    agreement = -np.log(np.where(right, sure, 1 - sure)).mean()
    schedule = sv.ConstantTemperature(1.7)
    assert negative_log_likelihood(dense, schedule)[2] == pytest.approx(token, abs=1e-5)
    assert negative_log_likelihood(dense, schedule, "agreement")[2] == pytest.approx(agreement, abs=1e-4)


def test_temperatures_stay_within_the_record():
    fitted = fit_temperatures(synthetic.record([20.0, 0.01]))
    assert list(fitted.values.values()) == pytest.approx([4.0, 0.5], rel=1e-3)


def test_rows_whose_final_token_cannot_be_drafted_are_left_out_of_the_token_fit():
    dense = synthetic.record([2.0])
    gaps = dense.true_gaps.copy()
    gaps[:, ::2] = -np.inf
    fitted = fit_temperatures(dataclasses.replace(dense, true_gaps=gaps))
    assert fitted.values[1] == pytest.approx(2.0, rel=0.15)
    with pytest.raises(sv.PromptError, match="can draft none"):
        fit_temperatures(dataclasses.replace(dense, true_gaps=np.full_like(gaps, -np.inf)))


def test_bad_input_is_refused():
    dense = synthetic.record([1.0], texts=2, positions=5)
    with pytest.raises(sv.SettingsError, match="objective"):
        fit_temperatures(dense, "accuracy")
    with pytest.raises(sv.SettingsError, match="true_gaps"):
        fit_temperatures(dataclasses.replace(dense, true_gaps=None))
    with pytest.raises(sv.PromptError, match="no rows"):
        fit_temperatures(dataclasses.replace(dense, start=5))
