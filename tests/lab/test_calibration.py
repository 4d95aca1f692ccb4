"""Calibration has known answers where the logits are made so that it has."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic

import selfdraft_viz as sv
from selfdraft_viz.lab.calibration import (
    calibration_error,
    calibration_table,
    confident_mistakes,
    exit_rows,
    first_exits,
    record_units,
    reliability,
    reliability_table,
    risk_coverage,
    share_with_interval,
    threshold_curve,
)


def drawn(seed: int, gap: float = 0.0, texts: int = 40, rows: int = 60):
    """Confidences, and agreements that come about with chance confidence - gap; agreements of a text go together."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.2, 0.95, (texts, rows))
    mood = rng.normal(0, 0.05, (texts, 1))
    agrees = rng.random((texts, rows)) < confidence - gap + mood
    units = np.broadcast_to(np.arange(texts)[:, None], (texts, rows))
    return confidence.ravel(), agrees.ravel(), units.ravel()


def test_a_calibrated_exit_has_no_error_within_its_interval():
    """In 19 of 20 draws; the plug-in estimate would say that there is one every time."""
    errors = [calibration_error(*drawn(seed)) for seed in range(100)]
    assert sum(error.low <= 0 for error in errors) >= 90
    assert np.mean([error.value for error in errors]) < 0.5 * np.mean([error.plug_in for error in errors])


def test_a_known_gap_lies_within_the_interval():
    errors = [calibration_error(*drawn(seed, gap=0.15)) for seed in range(100)]
    covered = sum(error.low <= 0.15 <= error.high for error in errors)
    assert covered >= 90
    assert all(error.bias > 0.1 for error in errors)  # overconfident


def test_a_synthetic_model_is_calibrated_at_its_own_temperature():
    dense = synthetic.record([1.0, 2.0, 3.0])
    right = sv.PerLayerTemperature({1: 1.0, 2: 2.0, 3: 3.0})
    mended = calibration_table(dense, right)
    assert (mended["ece_low"] == 0).all()
    assert (mended["ece"] < 0.02).all()
    raw = calibration_table(dense)
    assert raw["ece_low"][0] == 0
    assert (raw["ece_low"][1:] > 0.05).all()
    assert (raw["spurious"].diff()[1:] > 0).all()  # the sharper, the more often confidently wrong
    np.testing.assert_allclose(mended["confidence"], mended["confidence"][0], atol=1e-4)


def test_under_confidence_has_the_other_sign():
    table = calibration_table(synthetic.record([0.5]))
    assert table["bias"][0] < -0.05
    assert table["ece_low"][0] > 0.05


def test_reliability_of_rows_counted_by_hand():
    table = reliability([0.05, 0.15, 0.17, 1.0], [0, 1, 0, 1], bins=10)
    assert table["rows"].tolist() == [1, 2, 1]
    assert table["bin_low"].tolist() == [0.0, 0.1, 0.9]
    assert table["agreement"].tolist() == [0.0, 0.5, 1.0]
    assert table["confidence"].tolist() == pytest.approx([0.05, 0.16, 1.0])
    assert (table["agreement_low"] <= table["agreement"]).all()
    assert (table["agreement_high"] >= table["agreement"]).all()


def test_rows_of_one_text_tell_less_than_as_many_texts():
    hits = np.repeat([0, 1] * 20, 25)
    alone = share_with_interval(hits, np.arange(1000))
    together = share_with_interval(hits, np.repeat(np.arange(40), 25))
    assert alone[0] == together[0] == 0.5
    assert together[2] - together[1] > 3 * (alone[2] - alone[1])


def test_the_wilson_interval_of_independent_rows():
    share, low, high = share_with_interval([1] * 8 + [0] * 2, np.arange(10))
    assert (share, low, high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)  # Brown, Cai & DasGupta (2001)


def test_risk_coverage_of_rows_counted_by_hand():
    table = risk_coverage([0.9, 0.5, 0.5, 0.1], [1, 0, 1, 0])
    assert table["threshold"].tolist() == [0.9, 0.5, 0.1]
    assert table["coverage"].tolist() == [0.25, 0.75, 1.0]
    assert table["agreement"].tolist() == pytest.approx([1.0, 2 / 3, 0.5])


def test_risk_coverage_is_what_each_threshold_gives():
    dense = synthetic.record([2.0])
    ((_, confidence, agrees, _),) = exit_rows(dense)
    table = risk_coverage(confidence, agrees, points=50)
    assert len(table) == 50
    for row in table.itertuples():
        exits = confidence >= row.threshold
        assert row.coverage == pytest.approx(exits.mean())
        assert row.agreement == pytest.approx(agrees[exits].mean())


def test_first_exits_are_those_that_decoding_would_take():
    dense = synthetic.record([1.0, 2.0, 3.0], texts=4, positions=30)
    settings = sv.Settings(sv.LinearAnnealing(0.5), threshold=0.6, max_depth=2)
    table = first_exits(dense, settings)
    assert table["exit_layer"].tolist() == [1, 2, dense.num_layers]
    confidences = dense.confidences(settings.schedule.temperatures([1, 2, 3], dense.num_layers)).reshape(-1, 3)
    agrees = dense.agrees.reshape(-1, 3)
    counts, right = {1: 0, 2: 0, 10: 0}, {1: 0, 2: 0}
    for row in range(len(confidences)):
        exit_layer = next((layer for layer in (1, 2) if confidences[row, layer - 1] >= 0.6), 10)
        counts[exit_layer] += 1
        if exit_layer != 10:
            right[exit_layer] += agrees[row, exit_layer - 1]
    assert table["rows"].tolist() == list(counts.values())
    assert table["agreement"][:2].tolist() == pytest.approx([right[layer] / counts[layer] for layer in (1, 2)])
    assert np.isnan(table["agreement"][2])
    assert table["share"].sum() == pytest.approx(1)


def test_a_threshold_curve_adds_up_the_first_exits():
    dense = synthetic.record([1.0, 2.0, 3.0], texts=4, positions=30)
    curve = threshold_curve(dense, sv.LinearAnnealing(0.5), [0.0, 0.4, 0.8, sv.NEVER], exit_layers=(1, 3))
    assert curve["coverage"].tolist() == sorted(curve["coverage"], reverse=True)
    assert curve["coverage"].iloc[[0, -1]].tolist() == [1.0, 0.0]
    assert curve["exit_depth"][0] == 1
    exits = first_exits(dense, sv.Settings(sv.LinearAnnealing(0.5), 0.4, exit_layers=(1, 3)))[:2]
    assert curve["coverage"][1] == pytest.approx(exits["share"].sum())
    expected = (exits["agreement"] * exits["rows"]).sum() / exits["rows"].sum()
    assert curve["agreement"][1] == pytest.approx(expected)


def test_confident_mistakes_are_sure_and_wrong():
    dense = synthetic.record([1.0, 4.0])
    found = confident_mistakes(dense, threshold=0.8, per_exit=None)
    table = calibration_table(dense, threshold=0.8)
    assert (found.groupby("exit_layer").size() == (table["spurious"] * table["rows"]).round().tolist()).all()
    assert (found["exit_id"] != found["true_id"]).all()
    assert (found["confidence"] >= 0.8).all()
    best = confident_mistakes(dense, threshold=0.8, per_exit=2)
    assert len(best) == 4
    assert best["confidence"][0] == found["confidence"].iloc[0]


def test_prompt_rows_count_nowhere():
    dense = synthetic.record([1.0], texts=3, positions=20)
    part = sv.lab.record.DenseRecord(**{**vars(dense), "start": 12})
    assert part.rows == 24 == len(exit_rows(part)[0][1])
    assert reliability_table(part)["rows"].sum() == 24
    assert len(np.unique(record_units(part))) >= 24  # few texts are cut into pieces


def test_bad_input_is_refused():
    with pytest.raises(sv.SettingsError, match=r"0\.\.1"):
        calibration_error([1.5], [1])
    with pytest.raises(sv.SettingsError, match="one value a row"):
        reliability([0.5, 0.5], [1])
    with pytest.raises(sv.PromptError, match="two texts"):
        calibration_error([0.5, 0.5], [1, 0], [3, 3])
