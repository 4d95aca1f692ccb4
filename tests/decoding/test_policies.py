"""A policy decides how much is drafted, and nothing else."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import pytest
import strategies
import tiny
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import selfdraft_viz as sv
from selfdraft_viz.policies import Known


@dataclass(frozen=True)
class Whimsical(sv.Policy):
    """Exits and stops as a hash of all that it is told says: no rule that a decoder could have been made for."""

    seed: int

    def exits(self, exit_layer: int, confidence: float, threshold: float, known: Known) -> bool:
        return self._coin(exit_layer, confidence, known) % 3 > 0

    def stops(self, known: Known) -> bool:
        assert known.confidences, "asked before there was a draft"
        return self._coin(known) % 4 == 0

    def _coin(self, *told: object) -> int:
        return zlib.crc32(repr((self.seed, told)).encode())


@examples(40)
@given(decode=strategies.decodes(), seed=st.integers(0, 1000))
def test_the_text_is_that_of_ordinary_decoding_whatever_a_policy_decides(decode: strategies.Decode, seed: int) -> None:
    """Breaks when a policy's stop commits an unverified token, or an exit it forces is not verified like any other."""
    settings = decode.settings.replace(policy=Whimsical(seed))
    trace = decode.model.generate(decode.prompt, settings, **decode.options)
    assert trace.token_ids == decode.plain().token_ids


@examples(30)
@given(decode=strategies.decodes(sampled=False), policy=strategies.policies)
def test_a_shipped_policy_leaves_the_text_alone_and_keeps_the_bounds(
    decode: strategies.Decode, policy: sv.Policy
) -> None:
    trace = decode.model.generate(decode.prompt, decode.settings.replace(policy=policy), **decode.options)
    assert trace.token_ids == decode.plain().token_ids
    if decode.settings.max_width is not None:
        assert (trace.rounds["drafted"] <= decode.settings.max_width).all()


def test_a_policy_that_always_stops_drafts_one_token_a_round() -> None:
    model = tiny.load("llama", [1, 2, 3])
    always = sv.Settings(threshold=0, max_width=None, policy=sv.CostAware(draft_cost=10.0, token_value=1.0))
    trace = model.generate([1, 2, 3], always, max_new_tokens=20)
    assert set(trace.rounds["drafted"]) == {1}
    assert set(trace.rounds["stop_reason"]) == {"policy", "length"}


def test_known_counts_what_verification_judged() -> None:
    """Drafts after the first mismatch say nothing about how good drafts are."""
    known = Known().drafted(2, 0.9).drafted(2, 0.8).drafted(4, 0.7)
    after = known.verified(1)
    assert (after.confidences, after.judged, after.accepted) == ((), 2, 1)
    assert after.expected == pytest.approx(1.7)
    assert known.verified(3).judged == 3


@given(confidences=st.lists(st.floats(0.01, 1), min_size=1, max_size=8), least=st.floats(0, 1))
def test_the_product_rule_stops_where_the_product_falls_below(confidences: list[float], least: float) -> None:
    known = Known(tuple(confidences), tuple(1 for _ in confidences))
    assert sv.ProductOfConfidences(least).stops(known) == (math.prod(confidences) < least)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=8), st.floats(0.1, 5), st.floats(0.1, 5))
def test_with_nothing_judged_the_cost_aware_rule_is_a_product_rule(
    confidences: list[float], cost: float, value: float
) -> None:
    known = Known(tuple(confidences), tuple(1 for _ in confidences))
    if abs(math.prod(confidences) * value - cost) > 1e-9:
        assert sv.CostAware(cost, value).stops(known) == (math.prod(confidences) < cost / value)


def test_the_cost_aware_rule_learns_whether_confidences_can_be_trusted() -> None:
    drafts = Known((0.8, 0.8), (2, 2))
    rule = sv.CostAware(draft_cost=1, token_value=2)
    fooled = Known(drafts.confidences, drafts.exit_layers, judged=100, accepted=40, expected=80)
    modest = Known(drafts.confidences, drafts.exit_layers, judged=100, accepted=98, expected=60)
    assert not rule.stops(drafts)  # 0.64 x 2 > 1
    assert rule.stops(fooled)
    assert not rule.stops(modest)
    tight = sv.CostAware(draft_cost=1, token_value=1.4)
    assert tight.stops(drafts)  # 0.64 x 1.4 < 1
    assert not tight.stops(modest)


@given(policy=strategies.policies)
def test_policies_are_saved_with_their_settings(policy: sv.Policy) -> None:
    settings = sv.Settings(policy=policy)
    assert sv.Settings.from_dict(settings.to_dict()) == settings
    assert ("policy" in settings.to_dict()) == (policy != sv.PaperBounds())


def test_a_policy_of_ones_own_is_not_saved_but_its_trace_is(tmp_path) -> None:
    model = tiny.load("llama", [1, 2])
    settings = sv.Settings(policy=Whimsical(3))
    with pytest.raises(sv.SettingsError, match="no `kind`"):
        settings.to_dict()
    trace = model.generate([1, 2], settings, max_new_tokens=8)
    loaded = sv.Trace.load(trace.save(tmp_path / "run.parquet"))
    assert loaded.rounds.equals(trace.rounds)
    assert "Whimsical(seed=3)" in loaded.settings.policy.description
    with pytest.raises(sv.SettingsError, match="was not saved"):
        model.generate([1, 2], loaded.settings, max_new_tokens=8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: sv.Settings(policy="bold"), "is not a policy"),
        (lambda: sv.ProductOfConfidences(1.5), r"least=1\.5: use a number in 0\.\.1"),
        (lambda: sv.CostAware(draft_cost=0), "draft_cost=0: use a finite number above 0"),
        (lambda: sv.CostAware(patience=math.inf), "patience=inf"),
        (lambda: sv.Settings.from_dict({"policy": {"kind": "bold"}}), "unknown policy"),
        (lambda: sv.Settings.from_dict({"policy": {"kind": "product", "most": 1}}), "cannot be read"),
    ],
)
def test_bad_policies_are_refused(make, words: str) -> None:
    with pytest.raises(sv.SettingsError, match=words):
        make()
