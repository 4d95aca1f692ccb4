"""The growing tables say what the trace says in the end."""

from __future__ import annotations

import numpy as np
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from selfdraft_viz.plots.tables import numbers, words
from selfdraft_viz.trace import COLUMNS
from selfdraft_viz.widgets.live import LiveTables

NUMBERS = {
    "tokens": ["position", "token_id", "exit_depth", "confidence", "seconds"],
    "drafts": ["round", "position", "token_id", "exit_depth", "confidence"],
    "rounds": ["round", "first_position", "drafted", "accepted", "committed", "seconds"],
    "checks": ["position", "threshold"],
}
WORDS = {"tokens": ["text", "kind"], "drafts": ["text", "outcome"], "rounds": ["stop_reason", "ended_with"]}


@examples(40)
@given(
    decode=strategies.decodes(),
    cuts=st.lists(st.integers(0, 400), max_size=5),
    detail=st.sampled_from(["full", "tokens"]),
)
def test_live_tables_agree_with_the_trace(decode: strategies.Decode, cuts: list[int], detail: str) -> None:
    """Breaks when the explorer would show something else while it runs than the trace says afterwards."""
    events = decode.stream(detail=detail)
    recorder = decode.model.recorder()
    live = LiveTables(recorder.pieces)
    for cut in sorted(cuts):
        live.read(events[:cut])
    live.read(events)
    live.read(events)  # nothing is read twice
    for event in events:
        recorder.add(event)
    trace = recorder.trace()
    tables = {"tokens": trace.tokens[trace.tokens["kind"] != "prompt"], "drafts": trace.drafts, "rounds": trace.rounds}
    tables["checks"] = trace.exit_checks
    for name, table in tables.items():
        shown = getattr(live, name)
        for column in NUMBERS[name]:
            np.testing.assert_array_equal(numbers(shown, column), numbers(table, column), err_msg=f"{name}.{column}")
        for column in WORDS.get(name, []):
            assert list(words(shown, column)) == list(table[column]), f"{name}.{column}"
    summary = trace.summary()
    assert live.token_ids == trace.token_ids
    assert live.acceptance_rate == summary["acceptance_rate"]
    assert live.tokens_per_round == summary["tokens_per_round"]
    assert live.layer_passes_per_token == summary["layer_passes_per_token"]
    assert live.mean_exit_depth == pytest.approx(summary["mean_exit_depth"])
    if summary["seconds_per_token"] is not None:
        assert live.seconds_per_token == pytest.approx(summary["seconds_per_token"])
    assert live.pending == []


def test_columns_are_those_of_a_trace(embedded) -> None:
    live = LiveTables(embedded.recorder().pieces)
    assert set(live.tokens) == set(COLUMNS["tokens"])
    assert set(live.drafts) == set(COLUMNS["drafts"])
    assert set(live.rounds) <= set(COLUMNS["rounds"])
    assert set(live.checks) <= set(COLUMNS["exit_checks"])


def test_drafts_are_pending_until_the_verdict_and_then_thrown_away_or_committed(embedded) -> None:
    live = LiveTables(embedded.recorder().pieces)
    seen = {"pending": 0, "thrown away": 0}
    events = []
    for event in embedded.stream("Once upon a time", embedded.preset.replace(threshold=0.3), max_new_tokens=60):
        events.append(event)
        live.read(events)
        seen["pending"] += bool(live.pending)
        seen["thrown away"] += bool(live.thrown_away)
        assert not (live.pending and live.thrown_away)
        assert all(draft.position >= len(live.sequence) for draft in live.pending)
    assert seen["pending"]
    assert seen["thrown away"]
