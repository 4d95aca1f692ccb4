"""Rounds over recorded rows: where each begins and ends, and what it costs. No torch here.

A *lane* is one text under one setting. When every row's decision is known beforehand (all rules but those that look
back, see `selfdraft_viz.policies`), where a round ends depends only on where it begins, so all lanes step from round
to round together, and what a round counts is a difference of running sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REASONS = ("hard token", "end of sequence", "length", "width", "policy")
"""Why drafting stopped, by the code in `Rounds.reason`."""
COUNTS = (
    "new_tokens",
    "rounds",
    "drafted",
    "accepted",
    "exit_checks",
    "draft_layer_passes",
    "verification_layer_passes",
    "verified_rows",
    "draft_depths",
    "catch_up_row_passes",
    "verification_row_passes",
    "single_row_passes",
    "verification_runs",
)
"""What is counted of a round: names as in a trace, and `verified_rows` (its rows), `draft_depths` (the sum of its
drafts' exit depths), `single_row_passes` (of its layer passes, those over one row), `verification_runs` (runs of
consecutive layers over the same rows in its verification)."""


@dataclass(frozen=True)
class Decisions:
    """What would happen at every row, each (lanes, rows).

    Attributes:
        depth: layers that are run for the row while drafting.
        checks: exit checks made there.
        hard: no exit is confident.
        right: it exits, and with the true token.
        ends: it exits with an end-of-sequence token.
        confidence: of the exit that it leaves at; read only where a policy goes by it.
    """

    depth: NDArray[np.int32]
    checks: NDArray[np.int32]
    hard: NDArray[np.bool_]
    right: NDArray[np.bool_]
    ends: NDArray[np.bool_]
    confidence: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Stopping:
    """Rules that stop a round after the first draft with

        chance that all drafts of the round stand x value < cost,

    each (lanes,). The chance is the product of their confidences, each times (accepted + patience) / (expected +
    patience), at most 1; see `selfdraft_viz.policies`. An infinite patience takes them as they are; a negative cost
    never stops.
    """

    value: NDArray[np.float64]
    cost: NDArray[np.float64]
    patience: NDArray[np.float64]


@dataclass(frozen=True)
class Rounds:
    """Some rounds, each (rounds,).

    Attributes:
        lane: whose round it is.
        start, stop: its rows, those drafted from and a hard one at the end.
        reason: index into `REASONS`.
        accepted: drafts that stand.
        committed: tokens; the next round of the lane begins at `start + committed`.
    """

    lane: NDArray[np.intp]
    start: NDArray[np.intp]
    stop: NDArray[np.intp]
    reason: NDArray[np.int8]
    accepted: NDArray[np.intp]
    committed: NDArray[np.intp]

    @property
    def drafted(self) -> NDArray[np.intp]:
        return self.stop - self.start - (self.reason == 0)


class Counter:
    """Counts rounds over `decisions`, by running sums along the rows of each lane.

    Args:
        decisions: of every row.
        exit_layers: the model's.
        num_layers: L.
    """

    def __init__(self, decisions: Decisions, exit_layers: Sequence[int], num_layers: int) -> None:
        depth = decisions.depth
        self._rows = depth.shape[1]
        self._num_layers, self._exit_layers = num_layers, tuple(exit_layers)
        self._depth = depth.ravel()
        alone = depth.copy()  # layers that the row runs through without another to catch up, unless it opens the round
        np.minimum(depth[:, 1:], depth[:, :-1], out=alone[:, 1:])
        self._sums = [
            _running_sum(values) for values in (depth, decisions.checks, np.where(decisions.hard, 0, depth), alone)
        ]
        rows = np.arange(self._rows, dtype=np.int32)
        self._last_as_deep = [
            np.maximum.accumulate(np.where(depth >= layer, rows, np.int32(-1)), axis=1).ravel()
            for layer in self._exit_layers
        ]

    def count(self, rounds: Rounds) -> NDArray[np.int64]:
        """(rounds, COUNTS)."""
        start, stop = rounds.start, rounds.stop
        here, padded = rounds.lane * self._rows, rounds.lane * (self._rows + 1)
        first, last = here + start, here + stop - 1
        depths, checks, exit_depths, alone = (values[padded + stop] - values[padded + start] for values in self._sums)
        alone += self._depth[first] - (self._sums[3][padded + start + 1] - self._sums[3][padded + start])

        rows = stop - start
        row_passes = np.zeros_like(rows)
        runs, single = np.ones_like(rows), np.zeros_like(rows)
        behind = rows  # rows that lack the layers at hand; from the top down
        for below, layer, deepest in zip(
            (0, *self._exit_layers), (*self._exit_layers, self._num_layers), (*self._last_as_deep, None), strict=True
        ):
            lag = rows if deepest is None else stop - 1 - np.maximum(deepest[last], start - 1)
            row_passes = row_passes + (layer - below) * lag
            single = single + (layer - below) * (lag == 1)
            if layer > self._exit_layers[0]:
                runs = runs + ((behind > 0) & (behind != lag))
            behind = lag
        drafted = rounds.drafted
        counts = [
            rounds.committed,
            np.ones_like(rows),
            drafted,
            rounds.accepted,
            checks,
            depths,
            self._num_layers - self._depth[last],
            rows,
            exit_depths,
            rows * self._num_layers - depths - row_passes,
            row_passes,
            alone + single,
            runs,
        ]
        return np.stack(counts, axis=-1).astype(np.int64)


def walk(
    decisions: Decisions, widths: NDArray[np.float64], lengths: NDArray[np.intp], stopping: Stopping | None = None
) -> Iterator[Rounds]:
    """Rounds of every lane, the first ones of all lanes first.

    Args:
        decisions: of every row; with confidences where there are rules.
        widths: (lanes,) the most drafts in a round; may be infinite.
        lengths: (lanes,) a lane ends once that many tokens are committed.
        stopping: rules that may end a round earlier; None = the bounds alone.
    """
    rows = decisions.depth.shape[1]
    next_hard = _next(decisions.hard)
    next_end = _next(decisions.ends)
    next_wrong = _next(~decisions.right & ~decisions.hard)
    width = np.minimum(widths, rows).astype(np.intp)
    rules = None if stopping is None else _Rules(decisions, stopping, int(width.max(initial=1)))
    lane = np.flatnonzero(lengths > 0)
    start = np.zeros(len(lane), dtype=np.intp)
    while len(lane):
        at = lane * rows + start
        full, end = start + width[lane], next_end[at].astype(np.intp) + 1
        bound = np.minimum(np.minimum(full, end), rows)
        stop = bound if rules is None else np.minimum(bound, start + rules.drafts(lane, start))
        hard = next_hard[at].astype(np.intp)
        reasons = [hard < stop, stop == end, stop == rows, stop == full]
        reason = np.select(reasons, [0, 1, 2, 3], 4).astype(np.int8)
        stop = np.where(reason == 0, hard + 1, stop)
        drafted = stop - start - (reason == 0)
        accepted = np.minimum(next_wrong[at].astype(np.intp) - start, drafted)
        committed = np.where(accepted < drafted, accepted + 1, stop - start)
        yield Rounds(lane, start, stop, reason, accepted, committed)
        if rules is not None:
            rules.judged(lane, accepted, drafted)
        start = start + committed
        going = start < lengths[lane]
        lane, start = lane[going], start[going]


class _Rules:
    """What the rules of all lanes know, and how far each lets the round at hand go."""

    def __init__(self, decisions: Decisions, rules: Stopping, widest: int) -> None:
        assert decisions.confidence is not None
        self._confidence, self._rows = decisions.confidence.ravel(), decisions.depth.shape[1]
        self._rules, self._places = rules, np.arange(widest)
        self._accepted, self._expected = np.zeros((2, len(decisions.depth)))
        self._seen = np.zeros((0, widest))

    def drafts(self, lane: NDArray[np.intp], start: NDArray[np.intp]) -> NDArray[np.intp]:
        """(lanes,) drafts after which each rule stops the round that begins at `start`; too many where it does not."""
        rules = self._rules
        places = np.minimum(start[:, None] + self._places, self._rows - 1)
        self._seen = self._confidence[lane[:, None] * self._rows + places]
        patience = rules.patience[lane]
        with np.errstate(invalid="ignore"):
            learned = (self._accepted[lane] + patience) / (self._expected[lane] + patience)
        correction = np.where(np.isinf(patience), 1.0, learned)
        chance = np.minimum(1.0, self._seen * correction[:, None]).cumprod(axis=1)
        stops = chance * rules.value[lane, None] < rules.cost[lane, None]
        return np.where(stops.any(axis=1), stops.argmax(axis=1) + 1, self._rows)

    def judged(self, lane: NDArray[np.intp], accepted: NDArray[np.intp], drafted: NDArray[np.intp]) -> None:
        """The round's verification: all accepted drafts are judged, and the first one that was not."""
        judged = np.minimum(accepted + 1, drafted)
        sums = self._seen.cumsum(axis=1)
        self._expected[lane] += np.where(judged > 0, sums[np.arange(len(lane)), judged - 1], 0.0)
        self._accepted[lane] += accepted


def _running_sum(values: NDArray[np.int32]) -> NDArray[np.int32]:
    """(lanes, rows) -> (lanes * (rows + 1),): sums over the rows before each, and over all."""
    lanes, rows = values.shape
    sums = np.zeros((lanes, rows + 1), dtype=np.int32)
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums.ravel()


def _next(marks: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(lanes, rows) -> (lanes * rows,): the first marked row at or after each; `rows` where there is none."""
    rows = marks.shape[1]
    places = np.where(marks, np.arange(rows, dtype=np.int32), np.int32(rows))
    return np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1].ravel()
