"""What any settings would do to a recorded text. No torch here.

Decoding is exact, so the committed tokens do not depend on the settings: along them a dense record holds every exit
decision that settings could take, and the rounds follow by arithmetic. What a round commits is exact. What it drafts
*after* a wrong draft is not on the recorded path; there the recorded rows stand in for the rows that would have been,
which makes the work counted for such a round, and why it stopped, an estimate. (A policy that learns from what was
judged is exact too: only the first wrong draft of a round is judged, and all before it.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from selfdraft_viz.errors import SettingsError
from selfdraft_viz.lab.asking import walk_policy
from selfdraft_viz.lab.decisions import decide, is_known, plans_of, stopping, text_lengths
from selfdraft_viz.lab.record import DenseRecord
from selfdraft_viz.lab.rounds import COUNTS, REASONS, Counter, Rounds, walk
from selfdraft_viz.policies import PaperBounds
from selfdraft_viz.settings import Plan, Settings

_AT_ONCE = 2**20  # (settings x rows) held at a time
_FEW_LANES = 4096  # so few are counted all at once, not step by step


@dataclass(frozen=True)
class Replay:
    """Totals, prefill and first token left out; the fields are `selfdraft_viz.lab.rounds.COUNTS`."""

    new_tokens: int
    rounds: int
    drafted: int
    accepted: int
    exit_checks: int
    draft_layer_passes: int
    verification_layer_passes: int
    verified_rows: int
    draft_depths: int = 0
    catch_up_row_passes: int = 0
    verification_row_passes: int = 0
    single_row_passes: int = 0
    verification_runs: int = 0

    @property
    def acceptance_rate(self) -> float:
        return self.accepted / max(1, self.drafted)

    @property
    def tokens_per_round(self) -> float:
        return self.new_tokens / max(1, self.rounds)

    @property
    def mean_exit_depth(self) -> float:
        return self.draft_depths / max(1, self.drafted)

    @property
    def layer_passes_per_token(self) -> float:
        return (self.draft_layer_passes + self.verification_layer_passes) / max(1, self.new_tokens)

    @property
    def counts(self) -> NDArray[np.int64]:
        """(COUNTS,)."""
        return np.array(dataclasses.astuple(self), dtype=np.int64)


def replay(record: DenseRecord, settings: Settings, *, end_of_sequence_ids: Collection[int] = ()) -> Replay:
    """The rounds that self-draft decoding of `record`'s texts would make under `settings`, in total.

    Args:
        record: what the exits say.
        settings: with any policy.
        end_of_sequence_ids: tokens that end a text and a round; none = decoding with `stop_at_end=False`.

    Raises:
        SettingsError: the settings do not fit the recorded model, or need temperatures that the record does not hold.
    """
    counts = replay_many(record, [settings], end_of_sequence_ids=end_of_sequence_ids)
    return Replay(*(int(count) for count in counts[0].sum(axis=0)))


def replay_many(
    record: DenseRecord, settings: Sequence[Settings], *, end_of_sequence_ids: Collection[int] = ()
) -> NDArray[np.int64]:
    """(settings, texts, COUNTS) totals of each text under each setting; arguments and errors as for `replay`.

    Settings with shipped policies are replayed together (10,000 of them over 1,000 tokens take seconds), those with
    others one by one.
    """
    plans = plans_of(record, settings)
    lengths = text_lengths(record, end_of_sequence_ids)
    texts, rows = record.true_ids[:, record.start :].shape
    if not rows:
        raise SettingsError(f"the record has no rows after its start, {record.start}: record longer texts")
    totals = np.zeros((len(plans), texts, len(COUNTS)), dtype=np.int64)
    together = [index for index, plan in enumerate(plans) if is_known(plan.settings.policy)]
    together.sort(key=lambda index: type(plans[index].settings.policy) is not PaperBounds)  # who needs more, together
    size = max(1, _AT_ONCE // (texts * rows))
    for first in range(0, len(together), size):
        chosen = together[first : first + size]
        some = [plans[index] for index in chosen]
        rules = stopping(some, texts)
        decisions = decide(record, some, end_of_sequence_ids, with_confidence=rules is not None)
        counter = Counter(decisions, record.exit_layers, record.num_layers)
        widths = np.repeat([plan.max_width for plan in some], texts)
        by_lane = np.zeros((len(some) * texts, len(COUNTS)), dtype=np.int64)
        steps = walk(decisions, widths, np.tile(lengths, len(some)), rules)
        if len(by_lane) < _FEW_LANES:
            every = _joined(list(steps))
            np.add.at(by_lane, every.lane, counter.count(every))
        else:
            for rounds in steps:
                by_lane[rounds.lane] += counter.count(rounds)  # a lane has one round at a time
        totals[chosen] = by_lane.reshape(len(some), texts, len(COUNTS))
    for index, plan in enumerate(plans):
        if not is_known(plan.settings.policy):
            rounds, counts, _ = _all_rounds(record, plan, end_of_sequence_ids)
            np.add.at(totals[index], rounds.lane, counts)
    return totals


def replay_kinds(records: Mapping[str, DenseRecord], settings: Sequence[Settings]) -> NDArray[np.int64]:
    """(kinds, settings, COUNTS) totals of each kind of text under each setting, in the records' order: those of
    `replay_many`. Records of one shape are replayed together, in about the time of one."""
    shapes = {(one.true_ids.shape[1], one.start, one.exit_layers, one.num_layers) for one in records.values()}
    if len(shapes) > 1:
        return np.stack([replay_many(record, settings).sum(axis=1) for record in records.values()])
    counts = replay_many(DenseRecord.joined(records), settings)
    ends = np.cumsum([len(record.true_ids) for record in records.values()])
    return np.stack([part.sum(axis=1) for part in np.split(counts, ends[:-1], axis=1)])


def replay_rounds(
    record: DenseRecord, settings: Settings, text: int = 0, *, end_of_sequence_ids: Collection[int] = ()
) -> pd.DataFrame:
    """The rounds of one text, as `Trace.rounds` has them (all its columns but `seconds`), and `exact`: whether no draft
    was wrong, so that nothing in the row is an estimate. Other arguments and errors as for `replay`."""
    one = _one_text(record, text)
    (plan,) = plans_of(one, [settings])
    rounds, counts, _ = _all_rounds(one, plan, end_of_sequence_ids)
    named = dict(zip(COUNTS, counts.T, strict=True))
    stood = rounds.accepted == rounds.drafted
    ended = np.where(stood, np.where(rounds.reason == 0, "bonus", "accepted"), "correction")
    return pd.DataFrame(
        {
            "round": np.arange(len(rounds.start)),
            "first_position": record.start + rounds.start + 1,
            "drafted": rounds.drafted,
            "accepted": rounds.accepted,
            "committed": rounds.committed,
            "stop_reason": np.array(REASONS)[rounds.reason],
            "ended_with": ended,
            "exit_checks": named["exit_checks"],
            "draft_layer_passes": named["draft_layer_passes"],
            "verification_layer_passes": named["verification_layer_passes"],
            "draft_row_passes": named["draft_layer_passes"],
            "catch_up_row_passes": named["catch_up_row_passes"],
            "verification_row_passes": named["verification_row_passes"],
            "exact": stood,
        }
    )


def replay_tokens(
    record: DenseRecord, settings: Settings, text: int = 0, *, end_of_sequence_ids: Collection[int] = ()
) -> pd.DataFrame:
    """The tokens that the rounds of one text commit: `position`, `token_id`, `kind` (accepted, correction, bonus),
    `round` and `exit_depth`, as in `Trace.tokens`. Other arguments and errors as for `replay`."""
    one = _one_text(record, text)
    (plan,) = plans_of(one, [settings])
    rounds, _, depths = _all_rounds(one, plan, end_of_sequence_ids)
    made: list[dict[str, Any]] = []
    for number, (start, accepted, committed) in enumerate(
        zip(rounds.start.tolist(), rounds.accepted.tolist(), rounds.committed.tolist(), strict=True)
    ):
        stood = accepted == int(rounds.drafted[number])
        for place in range(committed):
            position = record.start + start + place
            drafted = place < accepted
            made.append(
                {
                    "position": position + 1,
                    "token_id": int(one.true_ids[0, position]),
                    "kind": "accepted" if drafted else "bonus" if stood else "correction",
                    "round": number,
                    "exit_depth": int(depths[number][place]) if drafted else record.num_layers,
                }
            )
    return pd.DataFrame(made, columns=["position", "token_id", "kind", "round", "exit_depth"])


def _one_text(record: DenseRecord, text: int) -> DenseRecord:
    texts = len(record.token_ids)
    if not 0 <= text < texts:
        raise SettingsError(f"text={text}, but the record has {texts} texts: use 0..{texts - 1}")
    return record.take([text])


def _joined(steps: Sequence[Rounds]) -> Rounds:
    """All rounds of some steps, lane by lane."""
    fields = [field.name for field in dataclasses.fields(Rounds)]
    empty = np.zeros(0, dtype=np.intp)
    columns = [np.concatenate([getattr(step, name) for step in steps] or [empty]) for name in fields]
    order = np.lexsort((columns[1], columns[0]))
    return Rounds(*(column[order] for column in columns))


def _all_rounds(
    record: DenseRecord, plan: Plan, end_of_sequence_ids: Collection[int]
) -> tuple[Rounds, NDArray[np.int64], list[NDArray[np.int32]]]:
    """Every round of every text under one plan, text by text, with its counts and the depths of its rows."""
    lengths = text_lengths(record, end_of_sequence_ids)
    if not is_known(plan.settings.policy):
        rounds, decisions = walk_policy(record, plan, lengths, end_of_sequence_ids)
        row_of = Rounds(
            np.arange(len(rounds.lane)), np.zeros_like(rounds.start), rounds.stop - rounds.start,
            rounds.reason, rounds.accepted, rounds.committed,
        )  # fmt: skip
        counts = Counter(decisions, record.exit_layers, record.num_layers).count(row_of)
        return rounds, counts, list(decisions.depth)
    rules = stopping([plan], len(lengths))
    decisions = decide(record, [plan], end_of_sequence_ids, with_confidence=rules is not None)
    rounds = _joined(list(walk(decisions, np.full(len(lengths), plan.max_width), lengths, rules)))
    counts = Counter(decisions, record.exit_layers, record.num_layers).count(rounds)
    depths = [
        decisions.depth[lane, start:stop]
        for lane, start, stop in zip(rounds.lane, rounds.start, rounds.stop, strict=True)
    ]
    return rounds, counts, depths
