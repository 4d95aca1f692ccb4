"""The exercises' checks let right answers through, and others not."""

from __future__ import annotations

import pytest
import recorded

import selfdraft_viz as sv
from selfdraft_viz.lab import schedule_exercises as exercises


def test_rounds_without_drafts() -> None:
    record = recorded.records()["low"]
    assert exercises.check_rounds_without_drafts(4 * (recorded.NEW_TOKENS - 1), record)
    assert not exercises.check_rounds_without_drafts(4, record)
    assert not exercises.check_rounds_without_drafts(..., record)


def test_expected_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    def right(chances: list[float]) -> float:
        total, product = 1.0, 1.0
        for chance in chances:
            product *= chance
            total += product
        return total

    assert exercises.check_expected_tokens(right)
    assert not exercises.check_expected_tokens(sum)
    assert not exercises.check_expected_tokens(lambda chances: ...)
    assert "not yet" in capsys.readouterr().out


def test_last_confidence() -> None:
    class Right(sv.Policy):
        def stops(self, known):
            return known.confidences[-1] < 0.5

    assert exercises.check_last_confidence(Right())
    assert not exercises.check_last_confidence(sv.ProductOfConfidences(0.5))
    assert not exercises.check_last_confidence(Right)
