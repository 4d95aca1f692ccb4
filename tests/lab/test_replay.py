"""Dense records hold the confidences that decoding computes; replaying them gives the rounds that decoding makes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import strategies
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import selfdraft_viz as sv
from selfdraft_viz.lab import record as record_module
from selfdraft_viz.lab.record import record
from selfdraft_viz.lab.replay import replay, replay_many, replay_rounds, replay_tokens
from selfdraft_viz.lab.rounds import COUNTS
from selfdraft_viz.policies import Known

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


def settings_for(width, depth, exits, threshold, schedule, policy=None) -> sv.Settings:
    if depth is not None and exits is not None and depth < exits[0]:
        depth = None
    return sv.Settings(schedule, threshold, depth, width, exits, policy or sv.PaperBounds())


recordable_schedules = st.one_of(
    st.floats(-0.6, 3.0).map(sv.LinearAnnealing),
    st.fixed_dictionaries(dict.fromkeys((1, 2, 3), st.floats(0.5, 4.0))).map(sv.PerLayerTemperature),
)
replayable = st.builds(
    settings_for,
    st.sampled_from([None, 1, 2, 3, 7]),
    st.sampled_from([None, 1, 2, 3]),
    st.sampled_from([None, (1,), (2,), (1, 3)]),
    st.one_of(st.floats(0.0, 0.5), st.just(sv.NEVER)),
    recordable_schedules,
    strategies.policies,
)


def sure_rounds(trace: sv.Trace, settings: sv.Settings) -> int:
    """Rounds before the first in which a decision hung by less than the record's error: 1e-4 of a confidence."""
    rounds = len(trace.rounds)
    checks = trace.exit_checks
    near = checks.loc[(checks["confidence"] - checks["threshold"]).abs() < 2 * ERROR, "round"]
    known = Known()
    for number, accepted in trace.rounds["accepted"].items():
        drafts = trace.drafts[trace.drafts["round"] == number]
        low, high, true = known, known, known
        for layer, confidence in zip(drafts["exit_depth"], drafts["confidence"], strict=True):
            true = true.drafted(layer, confidence)
            low, high = low.drafted(layer, confidence - 2 * ERROR), high.drafted(layer, confidence + 2 * ERROR)
            if settings.policy.stops(low) != settings.policy.stops(high):
                return min(rounds, number, *near)
        known = true.verified(int(accepted))
    return min(rounds, *near) if len(near) else rounds


COUNTED = [
    "exit_checks", "draft_layer_passes", "verification_layer_passes",
    "draft_row_passes", "catch_up_row_passes", "verification_row_passes",
]  # fmt: skip


@examples(60)
@given(family=st.sampled_from(["llama", "mistral sliding", "gpt2"]), seed=st.integers(0, 3), settings=replayable)
def test_replay_makes_the_rounds_of_decoding(family: str, seed: int, settings: sv.Settings) -> None:
    """Every round commits the same; a round without a wrong draft stops for the same reason after the same work."""
    model, dense = recorded(family, seed)
    trace = model.generate([7, 7, 1], settings, max_new_tokens=NEW_TOKENS)
    sure = sure_rounds(trace, settings)
    ours, theirs = replay_rounds(dense, settings).iloc[:sure], trace.rounds.iloc[:sure]
    for column in ("round", "first_position", "accepted", "committed"):
        assert ours[column].tolist() == theirs[column].tolist(), column
    exact = ours["exact"].to_numpy()
    assert exact.tolist() == (theirs["accepted"] == theirs["drafted"]).tolist()
    for column in ("drafted", "stop_reason", "ended_with", *COUNTED):
        assert ours[column][exact].tolist() == theirs[column].to_numpy()[exact].tolist(), column


@examples(25)
@given(family=st.sampled_from(["llama", "gpt2"]), seed=st.integers(0, 3), settings=replayable)
def test_replayed_tokens_are_those_of_decoding(family: str, seed: int, settings: sv.Settings) -> None:
    model, dense = recorded(family, seed)
    trace = model.generate([7, 7, 1], settings, max_new_tokens=NEW_TOKENS)
    sure = sure_rounds(trace, settings)
    theirs = trace.tokens[trace.tokens["round"].notna()]
    columns = ["position", "token_id", "kind", "round", "exit_depth"]
    theirs = theirs.loc[theirs["round"] < sure, columns].astype({"round": "int64"})
    ours = replay_tokens(dense, settings)
    assert ours.loc[ours["round"] < sure, columns].to_numpy().tolist() == theirs.to_numpy().tolist()


@examples(25)
@given(seed=st.integers(0, 3), settings=replayable, data=st.data())
def test_replay_ends_where_decoding_ends(seed: int, settings: sv.Settings, data: st.DataObject) -> None:
    """Breaks when an end-of-sequence token that is drafted or committed does not end the round, or the text."""
    model, dense = recorded("llama", seed)
    ends = data.draw(st.sets(st.sampled_from(dense.true_ids[0, 3:].tolist()), min_size=1, max_size=3))
    with tiny.ends_with(model, sorted(ends)):
        trace = model.generate([7, 7, 1], settings, max_new_tokens=NEW_TOKENS)
    sure = sure_rounds(trace, settings)
    ours = replay_rounds(dense, settings, end_of_sequence_ids=ends)
    if sure == len(trace.rounds):
        assert len(ours) == sure
    ours, theirs = ours.iloc[:sure], trace.rounds.iloc[:sure]
    exact = ours["exact"].to_numpy()
    for column in ("first_position", "accepted"):
        assert ours[column].tolist() == theirs[column].tolist(), column
    # the round that ends the text commits what it may; what a trace counts there is what was committed
    assert ours["committed"].tolist() == theirs["committed"].tolist()
    assert ours["stop_reason"][exact].tolist() == theirs["stop_reason"].to_numpy()[exact].tolist()


class Looking(sv.Policy):
    """The paper's bounds, but asked row by row, as a rule that looks back is."""


@examples(30)
@given(settings=st.lists(replayable, min_size=1, max_size=6), seeds=st.sets(st.integers(0, 3), min_size=1))
def test_many_settings_over_many_texts_are_one_setting_over_one_text_many_times(settings, seeds) -> None:
    """Breaks when lanes mix, and when stepping all lanes together and asking row by row part ways."""
    settings = [*settings, *(one.replace(policy=Looking()) for one in settings)]
    settings += [one.replace(policy=sv.PaperBounds()) for one in settings]
    model, first = recorded("llama", 0)
    texts = [model.generate_plain([7, seed, 1], max_new_tokens=NEW_TOKENS) for seed in seeds]
    dense = record(model, torch.tensor([[*text.prompt_ids, *text.token_ids][:-1] for text in texts]), start=3)
    ends = first.true_ids[0, 10:11].tolist()
    counts = replay_many(dense, settings, end_of_sequence_ids=ends)
    third = len(settings) // 4
    assert (counts[third : 2 * third] == counts[3 * third :]).all(), "row by row"
    for index, one in enumerate(settings):
        total = replay(dense, one, end_of_sequence_ids=ends)
        assert total.counts.tolist() == counts[index].sum(axis=0).tolist()
        for text in range(len(texts)):
            rounds = replay_rounds(dense, one, text, end_of_sequence_ids=ends)
            named = dict(zip(COUNTS, counts[index, text].tolist(), strict=True))
            assert named["rounds"] == len(rounds)
            assert named["new_tokens"] == rounds["committed"].sum()
            for column in ("drafted", "accepted", *COUNTED):
                if column != "draft_row_passes":
                    assert named[column] == rounds[column].sum(), column


@examples(30)
@given(seed=st.integers(0, 3), settings=replayable)
def test_passes_over_one_row_and_runs_of_layers_are_counted_as_they_happen(seed: int, settings: sv.Settings) -> None:
    """What the cost model weighs beside layer and row passes; only where nothing is an estimate."""
    model, dense = recorded("llama", seed)
    trace = model.generate([7, 7, 1], settings, max_new_tokens=NEW_TOKENS)
    if sure_rounds(trace, settings) < len(trace.rounds) or (trace.drafts["outcome"] != "accepted").any():
        return
    total, passes = replay(dense, settings), trace.layer_passes[trace.layer_passes["phase"] != "prefill"]
    assert total.single_row_passes == (passes["rows"] == 1).sum()
    verification = passes[passes["phase"] == "verification"]
    assert total.verification_runs == len(verification.groupby(["round", "first_position"]))
    assert total.draft_depths == trace.drafts["exit_depth"].sum()
    assert total.verified_rows == trace.rounds["drafted"].sum() + (trace.rounds["stop_reason"] == "hard token").sum()


def test_what_a_record_cannot_answer_is_refused() -> None:
    _, dense = recorded("llama", 0)
    with pytest.raises(sv.SettingsError, match=r"temperature 5 at exit layer 1: a dense record holds 0\.5\.\.4"):
        replay(dense, sv.Settings(sv.ConstantTemperature(5.0)))
    with pytest.raises(sv.SettingsError, match="no exit head at 4"):
        replay(dense, sv.Settings(exit_layers=(4,)))
    with pytest.raises(sv.SettingsError, match=r"text=1, but the record has 1 texts: use 0\.\.0"):
        replay_rounds(dense, sv.Settings(), 1)
    with pytest.raises(sv.SettingsError, match="no rows after its start"):
        replay(dataclasses.replace(dense, start=dense.token_ids.shape[1]), sv.Settings())


@dataclasses.dataclass(frozen=True)
class AskedProduct(sv.ProductOfConfidences):
    """The shipped rule, asked draft by draft."""


@dataclasses.dataclass(frozen=True)
class AskedCostAware(sv.CostAware):
    """The shipped rule, asked draft by draft."""


@examples(40)
@given(
    settings=replayable,
    seed=st.integers(0, 3),
    least=st.floats(0.001, 0.3),
    cost=st.floats(0.01, 0.5),
    patience=st.floats(0.1, 20),
)
def test_shipped_policies_replayed_together_stop_where_they_stop_when_asked(
    settings, seed, least, cost, patience
) -> None:
    """Breaks when what a rule knows is not kept, or kept of another lane."""
    _, dense = recorded("llama", seed)
    rules = [(sv.ProductOfConfidences(least), AskedProduct(least))]
    rules.append((sv.CostAware(cost, 1.0, patience), AskedCostAware(cost, 1.0, patience)))
    ends = dense.true_ids[0, 25:26].tolist()
    both = [settings.replace(policy=one) for pair in rules for one in pair]
    counts = replay_many(dense, [settings, *both], end_of_sequence_ids=ends)
    assert (counts[0] == replay_many(dense, [settings], end_of_sequence_ids=ends)[0]).all()
    assert (counts[1::2] == counts[2::2]).all()
    for told, asked in zip(both[::2], both[1::2], strict=True):
        ours, theirs = (replay_rounds(dense, one, end_of_sequence_ids=ends) for one in (told, asked))
        assert ours.to_dict() == theirs.to_dict()
