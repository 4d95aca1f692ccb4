"""Dense records hold the confidences that decoding computes; replaying them gives the rounds that decoding makes."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

import selfdraft_viz as sv
from selfdraft_viz.lab import record as record_module
from selfdraft_viz.lab.costs import measure_costs
from selfdraft_viz.lab.record import record
from selfdraft_viz.lab.replay import Replay, replay

NEW_TOKENS = 40
ERROR = 1e-4  # of a recorded confidence


def recorded(family: str, seed: int):
    model = tiny.load(family, exit_layers=[1, 2, 3], seed=seed)
    plain = model.generate_plain([7, 7, 1], max_new_tokens=NEW_TOKENS)
    whole = [*plain.prompt_ids, *plain.token_ids]
    return model, record(model, torch.tensor([whole[:-1]]), start=3)


@given(
    st.integers(0, 10),
    st.floats(0.5, 4.0),
    st.floats(0.1, 30.0),
    st.integers(2, 2000),
)
def test_a_confidence_at_any_temperature_comes_from_the_nodes(seed, temperature, scale, tokens):
    """Also for logits far sharper than a model's."""
    logits = np.random.default_rng(seed).normal(size=tokens) * scale
    behind = logits - logits.max()
    nodes = np.array([np.log(np.exp(behind * b).sum()) for b in record_module._nodes()])
    interpolated = np.exp(-nodes @ record_module._interpolation(1 / temperature))
    assert interpolated == pytest.approx(1 / np.exp(behind / temperature).sum(), abs=ERROR)


def test_temperatures_outside_the_record_are_refused():
    _, dense = recorded("llama", 0)
    with pytest.raises(ValueError, match=r"0\.5\.\.4"):
        dense.confidences({1: 5.0, 2: 1.0, 3: 1.0})


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_recorded_confidences_and_tokens_are_those_of_the_exit_checks(family):
    model, dense = recorded(family, 1)
    settings = sv.Settings(schedule=sv.LinearAnnealing(1.5), threshold=sv.NEVER)
    trace = model.generate([7, 7, 1], settings, max_new_tokens=NEW_TOKENS)
    confidences = dense.confidences(settings.schedule.temperatures(dense.exit_layers, model.num_layers))
    assert len(trace.exit_checks) == 3 * (NEW_TOKENS - 1)
    for check in trace.exit_checks.itertuples():
        index = dense.exit_layers.index(check.layer)
        assert confidences[0, check.position, index] == pytest.approx(check.confidence, abs=ERROR)
        assert dense.exit_ids[0, check.position, index] == check.token_id


@given(
    st.sampled_from(["llama", "mistral sliding", "gpt2"]),
    st.integers(0, 3),
    st.floats(0.0, 0.9),
    st.floats(0.0, 2.0),
    st.sampled_from([None, 1, 2, 3, 7]),
    st.sampled_from([None, 1, 2, 3]),
    st.sampled_from([None, (1,), (2,), (1, 3)]),
)
def test_replay_makes_the_rounds_of_decoding(family, seed, threshold, alpha, width, depth, exits):
    """Same commits; and the same work too, where no round went on drafting after a wrong draft."""
    if depth is not None and exits is not None and depth < exits[0]:
        depth = None
    settings = sv.Settings(sv.LinearAnnealing(alpha), threshold, depth, width, exits)
    model, dense = recorded(family, seed)
    trace = model.generate([7, 7, 1], settings, max_new_tokens=NEW_TOKENS)
    checks = trace.exit_checks
    if ((checks["confidence"] - threshold).abs() < 2 * ERROR).any():
        return
    predicted, rounds = replay(dense, settings), trace.rounds
    assert predicted.new_tokens == NEW_TOKENS - 1 == rounds["committed"].sum()
    assert predicted.rounds == len(rounds)
    assert predicted.accepted == rounds["accepted"].sum()
    if (trace.drafts["outcome"] == "dropped").any() or (rounds["ended_with"] == "correction").any():
        return
    assert predicted.drafted == rounds["drafted"].sum()
    assert predicted.exit_checks == rounds["exit_checks"].sum()
    assert predicted.draft_layer_passes == rounds["draft_layer_passes"].sum()
    assert predicted.verification_layer_passes == rounds["verification_layer_passes"].sum()


def test_costs_are_measured_and_add_up():
    model, dense = recorded("llama", 2)
    costs = measure_costs(model, context=16, rows=3, repeats=5)
    assert min(costs.layer, costs.layer_rows, costs.head, costs.head_rows, costs.exit_check, costs.per_draft) > 0
    nothing_drafted = replay(dense, sv.Settings(threshold=sv.NEVER, exit_layers=(1,)))
    assert nothing_drafted == Replay(
        new_tokens=NEW_TOKENS - 1,
        rounds=NEW_TOKENS - 1,
        drafted=0,
        accepted=0,
        exit_checks=NEW_TOKENS - 1,
        draft_layer_passes=NEW_TOKENS - 1,
        verification_layer_passes=(NEW_TOKENS - 1) * (model.num_layers - 1),
        verified_rows=NEW_TOKENS - 1,
    )
    expected = costs.layer + costs.exit_check + costs.per_draft + 4 * costs.layer_rows + costs.head_rows
    assert costs.selfdraft(nothing_drafted) == pytest.approx(expected)
