"""Rounds of a rule that looks back, found by asking it row by row what decoding would ask it. No torch here."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from selfdraft_viz.lab.record import DenseRecord
from selfdraft_viz.lab.rounds import REASONS, Decisions, Rounds
from selfdraft_viz.policies import Known
from selfdraft_viz.settings import Plan

_HARD, _END, _LENGTH, _WIDTH, _POLICY = (
    REASONS.index(reason) for reason in ("hard token", "end of sequence", "length", "width", "policy")
)


def walk_policy(
    record: DenseRecord, plan: Plan, lengths: NDArray[np.intp], end_of_sequence_ids: Collection[int]
) -> tuple[Rounds, Decisions]:
    """The rounds of every text under a plan of any policy, text by text, asking it what decoding would ask it.

    Returns:
        The rounds, their lanes being texts; and the decisions of each round's rows, whose lanes are the rounds.
    """
    rounds: list[tuple[int, int, int, int, int, int]] = []
    decided: list[list[tuple[int, int, bool, bool, bool]]] = []
    ends = frozenset(int(token) for token in end_of_sequence_ids)
    temperatures = {layer: plan.exit_temperatures.get(layer, 1.0) for layer in record.exit_layers}
    confidences = record.confidences(temperatures)[:, record.start :]
    columns = [(index, layer) for index, layer in enumerate(record.exit_layers) if layer in plan.exit_temperatures]
    for text, length in enumerate(lengths.tolist()):
        seen = confidences[text].tolist()
        exit_ids = record.exit_ids[text, record.start :].tolist()
        true_ids = record.true_ids[text, record.start :].tolist()
        known, start = Known(), 0
        while start < length:
            made, reason, known = _draft(plan, columns, seen, exit_ids, true_ids, ends, start, known)
            drafted = len(made) - (reason == _HARD)
            accepted = next((place for place in range(drafted) if not made[place][3]), drafted)
            committed = accepted + 1 if accepted < drafted else len(made)
            rounds.append((text, start, start + len(made), reason, accepted, committed))
            decided.append(made)
            known = known.verified(accepted)
            start += committed
    table = np.array(rounds, dtype=np.intp).reshape(-1, 6)
    lane, starts, stop, reasons, accepted_, committed_ = table.T
    return Rounds(lane, starts, stop, reasons.astype(np.int8), accepted_, committed_), _padded(decided)


def _draft(
    plan: Plan,
    columns: list[tuple[int, int]],
    confidences: list[list[float]],
    exit_ids: list[list[int]],
    true_ids: list[int],
    ends: frozenset[int],
    start: int,
    known: Known,
) -> tuple[list[tuple[int, int, bool, bool, bool]], int, Known]:
    """One round's rows (depth, checks, hard, right, ends), why it stopped, and what is known then."""
    policy, made = plan.settings.policy, []
    for row in range(start, len(true_ids)):
        for index, layer in columns:
            confidence = confidences[row][index]
            if policy.exits(layer, confidence, plan.threshold, known):
                break
        else:
            made.append((columns[-1][1], len(columns), True, False, False))
            return made, _HARD, known
        token = exit_ids[row][index]
        checks = columns.index((index, layer)) + 1
        made.append((layer, checks, False, token == true_ids[row], token in ends))
        known = known.drafted(layer, confidence)
        if token in ends:
            return made, _END, known
        if row + 1 >= len(true_ids):
            break
        if len(made) >= plan.max_width:
            return made, _WIDTH, known
        if policy.stops(known):
            return made, _POLICY, known
    return made, _LENGTH, known


def _padded(decided: list[list[tuple[int, int, bool, bool, bool]]]) -> Decisions:
    """Rounds as lanes of equal length; what lies past a round's own rows is never read."""
    widest = max(map(len, decided), default=1)
    table = np.zeros((len(decided), widest, 5), dtype=np.int32)
    for number, made in enumerate(decided):
        table[number, : len(made)] = made
    depth, checks, *flags = np.moveaxis(table, -1, 0)
    hard, right, ends = (flag.astype(bool) for flag in flags)
    return Decisions(np.ascontiguousarray(depth), np.ascontiguousarray(checks), hard, right, ends)
