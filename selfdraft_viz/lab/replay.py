"""What any settings would do to a recorded text. No torch here.

Decoding is exact, so the committed tokens do not depend on the settings: along them a dense record holds every exit
decision that settings could take, and the rounds follow by arithmetic. What a round commits is exact. What it drafts
*after* a wrong draft is not on the recorded path; there the recorded rows stand in for the rows that would have been,
which makes the work counted for such a round an estimate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selfdraft_viz.lab.record import DenseRecord
from selfdraft_viz.settings import Settings


@dataclass(frozen=True)
class Replay:
    """Totals over all texts of a record, prefill and first token left out."""

    new_tokens: int
    rounds: int
    drafted: int
    accepted: int
    exit_checks: int
    draft_layer_passes: int
    verification_layer_passes: int
    verified_rows: int

    @property
    def acceptance_rate(self) -> float:
        return self.accepted / max(1, self.drafted)

    @property
    def tokens_per_round(self) -> float:
        return self.new_tokens / max(1, self.rounds)

    @property
    def layer_passes_per_token(self) -> float:
        return (self.draft_layer_passes + self.verification_layer_passes) / max(1, self.new_tokens)


def replay(record: DenseRecord, settings: Settings) -> Replay:
    """The rounds that self-draft decoding of `record`'s texts would make under `settings`."""
    plan = settings.plan(record.exit_layers, record.num_layers)
    used = [record.exit_layers.index(layer) for layer in plan.exit_temperatures]
    layers = np.array([record.exit_layers[index] for index in used])
    temperatures = {layer: plan.exit_temperatures.get(layer, 1.0) for layer in record.exit_layers}
    exits = record.confidences(temperatures)[..., used] >= plan.threshold  # (texts, positions, used exits)
    first = exits.argmax(axis=-1)
    hard = np.logical_not(np.any(exits, axis=-1))
    depth = np.where(hard, layers[-1], layers[first])
    checks = np.where(hard, len(used), first + 1)
    right = np.take_along_axis(record.agrees[..., used], first[..., None], axis=-1)[..., 0] & ~hard

    totals = np.zeros(8, dtype=np.int64)
    for text in range(len(hard)):
        totals += _rounds(
            hard[text, record.start :],
            right[text, record.start :],
            depth[text, record.start :],
            checks[text, record.start :],
            record.num_layers,
            plan.max_width,
        )
    return Replay(*(int(value) for value in totals))


def _rounds(
    hard: np.ndarray, right: np.ndarray, depth: np.ndarray, checks: np.ndarray, num_layers: int, width: float
) -> np.ndarray:
    """One text; row 0 is the newest committed token's at the start. Totals in the order of `Replay`'s fields."""
    hard_, right_ = hard.tolist(), right.tolist()
    passes_before = np.concatenate([[0], np.cumsum(depth)])
    checks_before = np.concatenate([[0], np.cumsum(checks)])
    rows = len(hard_)
    rounds = drafted = accepted = exit_checks = draft_passes = verification = verified = new = 0
    row = 0
    while row < rows:
        stop, wrong = row, None
        ended_hard = False
        while stop < rows and stop - row < width:
            if hard_[stop]:
                ended_hard = True
                stop += 1
                break
            if wrong is None and not right_[stop]:
                wrong = stop
            stop += 1
        drafts = stop - row - ended_hard
        rounds += 1
        drafted += drafts
        draft_passes += int(passes_before[stop] - passes_before[row])
        exit_checks += int(checks_before[stop] - checks_before[row])
        verification += num_layers - int(depth[stop - 1])
        verified += stop - row
        if wrong is None:
            accepted += drafts
            new += drafts + ended_hard
            row = stop
        else:
            accepted += wrong - row
            new += wrong - row + 1
            row = wrong + 1
    return np.array([new, rounds, drafted, accepted, exit_checks, draft_passes, verification, verified])
