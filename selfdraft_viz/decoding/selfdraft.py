"""Self-draft decoding: draft with shallow exits, verify with the deep layers, commit what the model itself says.

SpecBound (Wen & Feng, Findings of ACL 2026, arXiv 2604.12247): annealed confidence decides where a position exits,
`max_depth` and `max_width` bound the speculation. What is committed is, token by token, what `decode_plain` commits.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from selfdraft_viz.decoding.request import Clock, Request, Sequence, SettingsSource, timed
from selfdraft_viz.errors import SettingsError
from selfdraft_viz.events import (
    DecodeFinished,
    DecodeStarted,
    DraftingStopped,
    Event,
    ExitCheck,
    SettingsChanged,
    SettingsRefused,
    StopReason,
    TokenGuess,
    Verified,
)
from selfdraft_viz.heads import ExitHeads
from selfdraft_viz.layered import ExitGraph, LayeredModel
from selfdraft_viz.noise import non_finite_logits
from selfdraft_viz.policies import Known
from selfdraft_viz.settings import Plan, Settings


def decode_selfdraft(request: Request, settings: SettingsSource) -> Iterator[Event]:
    """Self-draft decoding of `request`.

    Args:
        request: the model, the prompt and the bounds.
        settings: a `Settings`, or a callable that is read at every decision.

    Raises:
        SettingsError: at once, if the settings do not fit the model. (Later ones that do not are refused by an event.)
    """
    knobs = Knobs(settings, request)
    clock = Clock()
    return timed(_decode(request, knobs, clock), clock)


def _decode(request: Request, knobs: Knobs, clock: Clock) -> Iterator[Event]:
    sequence = Sequence(request, clock)
    yield DecodeStarted(
        "self-draft",
        request.prompt_ids,
        request.max_new_tokens,
        request.model.num_layers,
        request.heads.exit_layers,
        request.sampling,
    )
    yield SettingsChanged(0, knobs.plan.settings)
    yield from sequence.prefill()
    number, known = 0, Known()
    while sequence.finished is None:
        round = Round(number, known)
        yield from draft(sequence, knobs, round)
        true_ids = yield from verify(sequence, round)
        yield from commit(sequence, round, true_ids)
        number, known = number + 1, round.known
    yield DecodeFinished(sequence.finished, len(sequence.tokens) - len(request.prompt_ids), clock.now())


class Knobs:
    """The settings in force, read afresh at every decision."""

    def __init__(self, source: SettingsSource, request: Request) -> None:
        self._read = source if callable(source) else lambda: source
        self._exit_layers = request.heads.exit_layers
        self._num_layers = request.model.num_layers
        self._refused = ""
        self.version = 0
        self.plan: Plan = self._worked_out(self._read())

    def refresh(self) -> Iterator[Event]:
        """Take over new settings if there are any and they are valid."""
        try:
            settings = self._read()  # which may fail to make them, too
            plan = self.plan if settings is self.plan.settings else self._worked_out(settings)
        except SettingsError as error:
            if str(error) != self._refused:  # said once, however often it is read
                self._refused = str(error)
                yield SettingsRefused(self._refused)
            return
        self._refused = ""
        if settings != self.plan.settings:
            self.plan = plan
            self.version += 1
            yield SettingsChanged(self.version, settings)

    def _worked_out(self, settings: Settings) -> Plan:
        if not isinstance(settings, Settings):
            raise SettingsError(f"settings={settings!r}: give a Settings, or a callable that returns one")
        return settings.plan(self._exit_layers, self._num_layers)


@dataclass(frozen=True, slots=True)
class Draft:
    """A guess for the token after one pending row."""

    token_id: int
    exit_layer: int
    confidence: float


@dataclass(slots=True)
class Round:
    """One round while it runs. The first pending row is the newest committed token's."""

    number: int
    known: Known = Known()  # noqa: RUF009 - it is frozen
    drafts: list[Draft] = field(default_factory=list)
    stop_reason: StopReason = "hard token"
    exit_checks: int = 0
    draft_layer_passes: int = 0
    draft_row_passes: int = 0
    catch_up_row_passes: int = 0
    verification_layer_passes: int = 0
    verification_row_passes: int = 0


def draft(sequence: Sequence, knobs: Knobs, round: Round) -> Iterator[Event]:
    """Draft token after token until a hard token, the width, the length, an end of sequence, or the policy says so."""
    token = sequence.tokens[-1]
    while True:
        sequence.staircase.push([token])
        guess = yield from draft_one(sequence, knobs, round)
        if guess is None:
            round.stop_reason = "hard token"
            break
        round.drafts.append(guess)
        round.known = round.known.drafted(guess.exit_layer, guess.confidence)
        token = guess.token_id
        yield from knobs.refresh()
        if token in sequence.request.end_of_sequence_ids:
            round.stop_reason = "end of sequence"
            break
        if len(round.drafts) >= sequence.remaining:
            round.stop_reason = "length"
            break
        if len(round.drafts) >= knobs.plan.max_width:
            round.stop_reason = "width"
            break
        if knobs.plan.settings.policy.stops(round.known):
            round.stop_reason = "policy"
            break
    yield DraftingStopped(
        round.number,
        round.stop_reason,
        tuple(guess.token_id for guess in round.drafts),
        tuple(guess.exit_layer for guess in round.drafts),
        tuple(guess.confidence for guess in round.drafts),
    )


def draft_one(sequence: Sequence, knobs: Knobs, round: Round) -> Generator[Event, None, Draft | None]:
    """Run the newest row up through the exit layers until it is confident. Returns its `Draft`; None if it is hard."""
    staircase = sequence.staircase
    row = staircase.rows - 1
    yield from knobs.refresh()
    exit_layer = knobs.plan.next_exit(0)
    while exit_layer is not None:
        for run in staircase.advance(exit_layer):
            round.draft_layer_passes += run.layer_passes
            round.draft_row_passes += run.layer_passes
            round.catch_up_row_passes += run.layer_passes * (run.rows - 1)
            yield from sequence.ran(run, round.number, "draft", run.rows - 1)
        yield from knobs.refresh()
        if knobs.plan.temperature(exit_layer) is not None:  # still in use, now that its layers have run
            check = check_exit(sequence, knobs, round, row, exit_layer)
            round.exit_checks += 1
            if sequence.request.detail != "tokens":
                yield check
            if check.exited:
                return Draft(check.token_id, exit_layer, check.confidence)
        exit_layer = knobs.plan.next_exit(exit_layer)
    return None


def check_exit(sequence: Sequence, knobs: Knobs, round: Round, row: int, layer: int) -> ExitCheck:
    """The decision at one exit: annealed confidence c = max softmax(z / T_l), exit if c >= threshold, or as the policy
    has it."""
    request, plan = sequence.request, knobs.plan
    temperature = plan.exit_temperatures[layer]
    reading = read_exit(request, sequence.staircase.hidden_states(row, row + 1), layer, temperature)
    if not reading.confidence > 0:  # NaN too
        raise non_finite_logits(row + 1, f"exit layer {layer}")
    token_id = reading.token_id
    if request.sampling is not None:
        whole = request.heads.whole(reading.logits, request.model.vocab_size)
        (token_id,) = sequence.chooser.choose(whole, row + 1)
    return ExitCheck(
        round=round.number,
        position=row,
        layer=layer,
        token_id=token_id,
        confidence=reading.confidence,
        unannealed_confidence=reading.unannealed_confidence,
        exit_temperature=temperature,
        threshold=plan.threshold,
        exited=bool(plan.settings.policy.exits(layer, reading.confidence, plan.threshold, round.known)),
        settings_version=knobs.version,
        top_tokens=top_tokens(request, reading.logits),
        seconds=sequence.clock.now(),
    )


@dataclass(frozen=True, slots=True)
class ExitReading:
    logits: Tensor  # (1, tokens) over the heads' vocabulary
    token_id: int  # argmax z
    confidence: float
    unannealed_confidence: float | None


@torch.inference_mode()
def read_exit(request: Request, hidden_states: Tensor, layer: int, temperature: float) -> ExitReading:
    """One exit head on one row, (1, width). One read back from the device."""
    compiled = request.model.compiled
    if compiled is not None:
        head = compiled.head(request.heads, layer)
        scores, best_column, *both = compiled.exit(head, hidden_states.numpy(), temperature)
        full = both[1] if request.detail == "full" else None
        return ExitReading(torch.from_numpy(scores), request.heads.token_id(best_column), both[0], full)
    if hidden_states.is_cuda:
        logits, numbers = _exit_graph(request.model, request.heads, layer, hidden_states)(hidden_states, temperature)
        logits = logits.clone() if request.sampling or request.top_tokens else logits
    else:
        logits, numbers = _exit_numbers(request.model, request.heads, layer, hidden_states, temperature)
    column, annealed, unannealed = numbers.tolist()
    full = 1.0 / unannealed if request.detail == "full" else None
    return ExitReading(logits, request.heads.token_id(int(column)), 1.0 / annealed, full)


def _exit_numbers(
    model: LayeredModel, heads: ExitHeads, layer: int, hidden_states: Tensor, temperature: Tensor | float
) -> tuple[Tensor, Tensor]:
    """(1, tokens) logits of one exit, and (3,) float64: the best column, sum exp((z - best) / T), and that for T = 1.
    The confidence is exp(best / T) / sum exp(z / T), the inverse of such a sum."""
    logits = heads.logits(model, layer, hidden_states)
    wide = logits[0] if logits.dtype in (torch.float32, torch.float64) else logits[0].float()
    best, column = wide.max(dim=-1)
    behind = wide - best
    sums = [(behind / temperature).exp().sum(), behind.exp().sum()]
    return logits, torch.stack([column.double(), *(one.double() for one in sums)])


def _exit_graph(model: LayeredModel, heads: ExitHeads, layer: int, like: Tensor) -> ExitGraph:
    graphs = model.exit_graphs.setdefault(heads, {})
    if layer not in graphs:
        seen_from_graph = weakref.ref(heads)

        def read(hidden_states: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
            return _exit_numbers(model, cast("ExitHeads", seen_from_graph()), layer, hidden_states, temperature)

        graphs[layer] = ExitGraph(read, like)
    return graphs[layer]


@torch.inference_mode()
def top_tokens(request: Request, logits: Tensor) -> tuple[TokenGuess, ...]:
    """The likeliest tokens of one exit's (1, tokens) logits with their un-annealed probabilities, likeliest first."""
    if request.top_tokens == 0:
        return ()
    count = min(request.top_tokens, logits.shape[-1])
    probabilities, columns = logits[0].float().softmax(dim=-1).topk(count)
    pairs = zip(columns.tolist(), probabilities.tolist(), strict=True)
    return tuple(TokenGuess(request.heads.token_id(column), probability) for column, probability in pairs)


def verify(sequence: Sequence, round: Round) -> Generator[Event, None, list[int]]:
    """All pending rows up through the layers they still lack, in one pass. Returns the true token after each row."""
    staircase = sequence.staircase
    for run in staircase.advance(sequence.model.num_layers):
        round.verification_layer_passes += run.layer_passes
        round.verification_row_passes += run.layer_passes * run.rows
        yield from sequence.ran(run, round.number, "verification", 0)
    first_position = len(sequence.tokens)
    return sequence.chooser.choose(staircase.logits(first_position - 1, staircase.rows), first_position)


def commit(sequence: Sequence, round: Round, true_ids: list[int]) -> Iterator[Event]:
    """Accept drafts from the left while they are the true tokens; then a correction, a bonus, or nothing."""
    num_layers = sequence.model.num_layers
    first_position = len(sequence.tokens)
    accepted = 0
    for guess, true_id in zip(round.drafts, true_ids, strict=False):
        if guess.token_id != true_id:
            break
        accepted += 1
    round.known = round.known.verified(accepted)
    correction = true_ids[accepted] if accepted < len(round.drafts) else None
    bonus = true_ids[accepted] if correction is None and round.stop_reason == "hard token" else None
    yield Verified(
        round=round.number,
        first_position=first_position,
        draft_ids=tuple(guess.token_id for guess in round.drafts),
        true_ids=tuple(true_ids),
        accepted=accepted,
        correction=correction,
        bonus=bonus,
        stop_reason=round.stop_reason,
        seconds=sequence.clock.now(),
        **{name: getattr(round, name) for name in _COUNTS},
    )
    for guess in round.drafts[:accepted]:
        yield sequence.commit(guess.token_id, "accepted", round.number, guess.exit_layer, guess.confidence)
    if correction is not None:
        yield sequence.commit(correction, "correction", round.number, num_layers, None)
    if bonus is not None:
        yield sequence.commit(bonus, "bonus", round.number, num_layers, None)
    sequence.staircase.truncate(len(sequence.tokens) - 1)


_COUNTS = [
    field_.name
    for field_ in dataclasses.fields(Round)
    if field_.name.endswith("passes") or field_.name == "exit_checks"
]
