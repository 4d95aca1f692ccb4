"""What the stream of events of a self-draft decode says is what happened."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, field

import pytest
import strategies
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import selfdraft_viz as sv
from selfdraft_viz.decoding import request as request_module
from selfdraft_viz.events import (
    Committed,
    DecodeFinished,
    DecodeStarted,
    DraftingStopped,
    Event,
    ExitCheck,
    LayersRan,
    SettingsChanged,
    Verified,
)
from selfdraft_viz.policies import Known


@dataclass
class Replay:
    """Follows a stream with the staircase's rule alone, and objects to whatever breaks it.

    `lengths[l]` counts the rows that have been through layer l; `tokens` are those committed so far.
    """

    decode: strategies.Decode
    lengths: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    drafts: list[ExitCheck] = field(default_factory=list)
    checks: list[ExitCheck] = field(default_factory=list)  # of the row at hand
    to_commit: list[tuple[int, str]] = field(default_factory=list)
    stopped: DraftingStopped | None = None
    round: int = 0
    sums: dict[str, int] = field(default_factory=dict)
    known: Known = field(default_factory=Known)  # before the round
    seconds: float = 0.0

    def follow(self, events: list[Event]) -> None:
        started, changed, *events = events
        assert isinstance(started, DecodeStarted)
        assert isinstance(changed, SettingsChanged)
        assert (changed.version, changed.settings) == (0, self.decode.settings)
        self.num_layers = started.num_layers
        self.lengths = [0] * (self.num_layers + 1)
        self.tokens = list(started.prompt_ids)
        self.end = len(self.tokens) + started.max_new_tokens
        *events, finished = events
        assert isinstance(finished, DecodeFinished)
        for event in events:
            assert event.seconds >= self.seconds if hasattr(event, "seconds") else True
            self.seconds = getattr(event, "seconds", self.seconds)
            getattr(self, type(event).__name__)(event)
        assert self.to_commit == []
        assert finished.new_tokens == len(self.tokens) - len(started.prompt_ids)
        self.truncate()
        assert self.lengths[1:] == [len(self.tokens) - 1] * self.num_layers, "a committed token misses a layer"

    def truncate(self) -> None:
        self.lengths = [min(length, len(self.tokens) - 1) for length in self.lengths]

    def LayersRan(self, event: LayersRan) -> None:
        layers, rows = event.last_layer - event.first_layer + 1, event.stop_position - event.first_position
        assert layers >= 1
        assert rows >= 1
        if event.phase == "prefill":
            assert event.round is None
            assert (event.first_layer, event.last_layer) == (1, self.num_layers)
            assert event.stop_position <= len(self.tokens)
            self.lengths[0] = event.stop_position
        else:
            assert event.round == self.round
            if self.lengths[0] < event.stop_position:  # a new row, which nothing has been run for yet
                assert event.first_layer == 1
                assert not self.checks
                self.lengths[0] = event.stop_position
            for name in ("layer_passes", "row_passes"):
                phase = "draft" if event.phase == "draft" else "verification"
                count = layers if name == "layer_passes" else layers * (rows - event.catch_up_rows)
                self.sums[f"{phase}_{name}"] = self.sums.get(f"{phase}_{name}", 0) + count
            self.sums["catch_up_row_passes"] = self.sums.get("catch_up_row_passes", 0) + layers * event.catch_up_rows
        if event.phase == "draft":
            assert event.stop_position == self.row + 1 == self.lengths[0]
            assert event.catch_up_rows == rows - 1
        else:
            assert event.catch_up_rows == 0
        for layer in range(event.first_layer, event.last_layer + 1):
            assert self.lengths[layer] == event.first_position, "a row skipped a layer, or ran through it twice"
            assert self.lengths[layer - 1] >= event.stop_position, "a row ran through a layer before the one below it"
            self.lengths[layer] = event.stop_position

    @property
    def row(self) -> int:
        """The position that is being drafted from."""
        return len(self.tokens) - 1 + len(self.drafts)

    def ExitCheck(self, event: ExitCheck) -> None:
        how = self.decode.settings
        assert (event.round, event.position) == (self.round, self.row)
        assert sum(length > event.position for length in self.lengths[1:]) == event.layer, "checked at another depth"
        used = [
            layer
            for layer in (how.exit_layers or self.decode.model.exit_layers)
            if how.max_depth is None or layer <= how.max_depth
        ]
        assert event.layer == used[len(self.checks)], "exits are tried from the shallowest on"
        assert event.exit_temperature == how.schedule.temperatures([event.layer], self.num_layers)[event.layer]
        assert event.threshold == how.threshold
        assert event.exited == (event.confidence >= event.threshold)
        assert 0 < event.confidence <= 1
        assert event.unannealed_confidence is not None
        if event.exit_temperature >= 1:  # equal where all tokens are equally likely
            assert event.confidence <= event.unannealed_confidence * (1 + 1e-9)
        if event.exit_temperature <= 1:
            assert event.confidence >= event.unannealed_confidence * (1 - 1e-9)
        self.checks.append(event)
        if event.exited:
            self.drafts.append(event)
            self.checks = []

    def DraftingStopped(self, event: DraftingStopped) -> None:
        how = self.decode.settings
        drafted = len(self.drafts)
        remaining = self.end - len(self.tokens)
        width = math.inf if how.max_width is None else how.max_width
        assert event.round == self.round
        assert event.draft_ids == tuple(check.token_id for check in self.drafts)
        assert event.exit_depths == tuple(check.layer for check in self.drafts)
        assert event.confidences == tuple(check.confidence for check in self.drafts)
        assert drafted <= min(width, remaining)
        ends = self.decode.model.end_of_sequence_ids
        assert not ends & set(event.draft_ids[:-1])
        if event.reason == "hard token":
            assert self.checks, "a hard token failed at least one check"
            assert not ends & set(event.draft_ids)
            assert drafted < min(width, remaining)
        else:
            assert drafted >= 1
            assert not self.checks
            assert (event.reason == "end of sequence") == (event.draft_ids[-1] in ends)
            assert (event.reason == "length") <= (drafted == remaining)
            assert (event.reason == "width") <= (drafted == width)
            asked = [self.known]
            for check in self.drafts:
                asked.append(asked[-1].drafted(check.layer, check.confidence))
            assert not any(how.policy.stops(known) for known in asked[1:-1])
            assert (event.reason == "policy") <= how.policy.stops(asked[-1])
        self.checks = []
        self.stopped = event

    def Verified(self, event: Verified) -> None:
        drafted = len(self.drafts)
        rows = drafted + (event.stop_reason == "hard token")
        assert event.stop_reason == self.stopped.reason
        assert event.round == self.round
        assert event.first_position == len(self.tokens)
        assert event.draft_ids == self.stopped.draft_ids
        assert self.lengths == [len(self.tokens) - 1 + rows] * (self.num_layers + 1), "verified with a layer missing"
        assert len(event.true_ids) == rows
        agree = [draft == true for draft, true in zip(event.draft_ids, event.true_ids, strict=False)]
        assert event.accepted == (agree.index(False) if False in agree else drafted)
        stood = event.accepted == drafted
        assert event.correction == (None if stood else event.true_ids[event.accepted])
        assert event.bonus == (event.true_ids[drafted] if stood and event.stop_reason == "hard token" else None)
        for name in (
            "draft_layer_passes",
            "verification_layer_passes",
            "draft_row_passes",
            "catch_up_row_passes",
            "verification_row_passes",
        ):
            assert getattr(event, name) == self.sums.get(name, 0), name
        self.to_commit = [(token_id, "accepted") for token_id in event.draft_ids[: event.accepted]]
        self.to_commit += [(event.correction, "correction")] if event.correction is not None else []
        self.to_commit += [(event.bonus, "bonus")] if event.bonus is not None else []
        assert 1 <= len(self.to_commit) <= drafted + (event.stop_reason == "hard token")
        self.sums = {}
        for check in self.drafts:
            self.known = self.known.drafted(check.layer, check.confidence)
        self.known = self.known.verified(event.accepted)

    def Committed(self, event: Committed) -> None:
        assert event.position == len(self.tokens)
        if event.kind == "first":
            assert event.round is None
            assert self.lengths == [len(self.tokens)] * (self.num_layers + 1)
        else:
            assert (event.token_id, event.kind) == self.to_commit.pop(0)
            assert event.round == self.round
        if event.kind == "accepted":
            check = self.drafts[event.position - (self.stopped_at + 1)]
            assert (event.token_id, event.exit_depth, event.confidence) == (
                check.token_id,
                check.layer,
                check.confidence,
            )
        else:
            assert event.exit_depth == self.num_layers
            assert event.confidence is None
        self.tokens.append(event.token_id)
        if not self.to_commit:
            self.truncate()
            self.lengths[0] = min(self.lengths[0], len(self.tokens) - 1)
            self.round += event.kind != "first"
            self.drafts = []

    @property
    def stopped_at(self) -> int:
        """The newest committed position when the round was opened."""
        return self.drafts[0].position


@examples(80)
@given(decode=strategies.decodes(), data=st.data())
def test_every_row_runs_through_every_layer_once_and_the_events_say_so(
    decode: strategies.Decode, data: st.DataObject
) -> None:
    """Breaks when events and computation part: a layer skipped or run twice, a wrong catch-up, a count that is not the
    sum of what it counts, a token committed that was not verified, a bound that is not kept."""
    ends = data.draw(st.sets(strategies.token_ids, max_size=20), label="ends")
    with tiny.ends_with(decode.model, sorted(ends)):
        Replay(decode).follow(decode.stream())


@examples(15)
@given(decode=strategies.decodes(), count=st.integers(0, 6))
def test_less_detail_says_less_about_the_same_decode(decode: strategies.Decode, count: int) -> None:
    """Breaks when the detail asked for changes what is decoded, or a count that is told."""

    def told(events: list[Event], *kinds: type) -> list[tuple]:
        skipped = ("seconds", "unannealed_confidence", "top_tokens")
        return [
            tuple(getattr(event, name) for name in event.__slots__ if name not in skipped)
            for event in events
            if isinstance(event, kinds)
        ]

    full = decode.stream(detail="full", top_tokens=count)
    checks = decode.stream(detail="checks")
    tokens = decode.stream(detail="tokens")
    everything = (LayersRan, ExitCheck, DraftingStopped, Verified, Committed)
    assert told(full, *everything) == told(checks, *everything)
    assert told(full, DraftingStopped, Verified, Committed) == told(tokens, *everything)
    assert {event.unannealed_confidence for event in checks if isinstance(event, ExitCheck)} <= {None}
    for event in full:
        if isinstance(event, ExitCheck):
            assert len(event.top_tokens) == count
            probabilities = [guess.probability for guess in event.top_tokens]
            assert probabilities == sorted(probabilities, reverse=True)
            if count:
                assert probabilities[0] == pytest.approx(event.unannealed_confidence, rel=1e-5)
            if count and decode.sampling is None:
                assert event.token_id == event.top_tokens[0].token_id


def shallow(family: str, exit_layer: int) -> sv.Model:
    """A model whose layers above `exit_layer` do nothing, so that its exit there says what its last layer says."""
    base = copy.deepcopy(tiny.base(family))
    model = sv.load(base, exit_layers=[exit_layer])
    with torch.no_grad():
        for layer in model.layered.layers[exit_layer:]:
            for name, parameter in layer.named_parameters():
                if any(part in name for part in ("o_proj", "down_proj", "c_proj", "dense.", "dense_4h_to_h")):
                    parameter.zero_()
    return model


@examples(25)
@given(
    family=st.sampled_from(["llama", "mistral sliding", "gpt2", "gpt_neox"]),
    exit_layer=st.integers(1, 3),
    prompt=strategies.prompts,
    sampling=st.none() | strategies.samplings,
    width=st.integers(1, 6),
)
def test_an_exit_that_says_what_the_last_layer_says_has_every_draft_accepted(
    family: str, exit_layer: int, prompt: list[int], sampling: sv.Sampling | None, width: int
) -> None:
    """Breaks when a draft is drawn with another noise, temperature, top-k or top-p than the true token: the text would
    still be right, and nothing but the speed lost."""
    model = shallow(family, exit_layer)
    how = sv.Settings(threshold=0, max_width=width)
    trace = model.generate(prompt, how, max_new_tokens=16, sampling=sampling)
    assert set(trace.drafts["outcome"]) == {"accepted"}
    assert len(trace.rounds) == math.ceil(15 / width)
    assert trace.token_ids == model.generate_plain(prompt, max_new_tokens=16, sampling=sampling).token_ids


def test_a_confidence_that_equals_the_threshold_exits() -> None:
    """Breaks when `threshold=1` no longer lets out a confidence that rounds to 1, or `>=` becomes `>`."""
    model = tiny.load("llama", [1, 2, 3])
    first = model.generate([1, 2], sv.Settings(threshold=sv.NEVER), max_new_tokens=2).exit_checks
    for layer, confidence in zip(first["layer"], first["confidence"], strict=True):
        for threshold, exits in ((confidence, True), (math.nextafter(confidence, 2), False)):
            if threshold <= 1:
                how = sv.Settings(threshold=threshold, exit_layers=(layer,))
                check = model.generate([1, 2], how, max_new_tokens=2).exit_checks.iloc[0]
                assert (check["confidence"], check["exited"]) == (confidence, exits)
    certain = sv.Settings(schedule=sv.ConstantTemperature(1e-6), threshold=1)
    assert model.generate([1, 2], certain, max_new_tokens=8).exit_checks["exited"].all()


@examples(15)
@given(decode=strategies.decodes(), after=st.integers(0, 60))
def test_a_decode_closed_early_leaves_the_model_usable(decode: strategies.Decode, after: int) -> None:
    """Breaks when a stopped decode leaves something behind in the model."""
    stream = decode.model.stream(decode.prompt, decode.settings, **decode.options)
    for _ in zip(range(after), stream, strict=False):
        pass
    stream.close()
    assert list(stream) == []
    assert decode.selfdraft().token_ids == decode.plain().token_ids


def test_a_long_prompt_passes_in_pieces_and_gives_the_same_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when the pieces of a prefill do not see each other, or their mask is that of the first piece."""
    prompt = [(7 * i) % tiny.VOCABULARY for i in range(40)]
    how = sv.Settings(schedule=sv.NoAnnealing(), threshold=0.2)
    for family in ("llama", "gemma3 text", "phi3 sliding", "gpt2"):
        model = tiny.load(family)
        whole = model.generate(prompt, how, max_new_tokens=20)
        with monkeypatch.context() as patch:
            patch.setattr(request_module, "_PREFILL_ROWS", 7)
            pieces = model.generate(prompt, how, max_new_tokens=20)
        assert pieces.token_ids == whole.token_ids == model.generate_plain(prompt, max_new_tokens=20).token_ids
        prefill = pieces.layer_passes[pieces.layer_passes["phase"] == "prefill"]
        assert sorted(set(prefill["first_position"])) == [0, 7, 14, 21, 28, 35]


def test_time_that_the_consumer_takes_is_not_decoding_time() -> None:
    """Breaks when drawing, or a reader that thinks, is counted as decoding."""
    model = tiny.load("llama")
    last = 0.0
    began = time.perf_counter()
    for event in model.stream([1, 2], sv.Settings(), max_new_tokens=4):
        time.sleep(0.02)
        last = getattr(event, "seconds", last)
    assert last < (time.perf_counter() - began) / 2
