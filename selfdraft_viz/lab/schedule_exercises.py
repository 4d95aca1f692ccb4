"""Checks for the exercises of the schedule lab: each tries a reader's answer on examples of its own."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import isclose, prod
from typing import Any

from selfdraft_viz.lab.record import DenseRecord
from selfdraft_viz.lab.replay import replay
from selfdraft_viz.policies import Known, Policy
from selfdraft_viz.settings import NEVER, Settings

_NOT_YET = "not yet: put your answer in place of the dots"


def check_rounds_without_drafts(answer: Any, record: DenseRecord) -> bool:
    """`answer`: how many rounds `record`'s texts take where nothing may exit."""
    if answer is None or answer is Ellipsis:
        return _say(_NOT_YET, False)
    right = answer == replay(record, Settings(threshold=NEVER)).rounds
    return _say("right" if right else "no: how many tokens does a round commit where nothing exits?", right)


def check_expected_tokens(function: Callable[[list[float]], Any]) -> bool:
    """`function(chances)`: the tokens that a round is expected to commit whose drafts stand with these chances, each
    given that all before it stand, and which ends at a hard token."""
    for chances in ([], [0.5], [0.9, 0.8], [0.9, 0.5, 0.2], [1.0, 1.0], [0.0, 0.7]):
        answer = function(list(chances))
        if answer is None or answer is Ellipsis:
            return _say(_NOT_YET, False)
        if not isclose(float(answer), _by_enumeration(chances), abs_tol=1e-9):
            expected = _by_enumeration(chances)
            hint = "a wrong draft still brings its correction, and a hard token at the end its bonus"
            return _say(f"{chances}: {float(answer):.4f}, expected {expected:.4f}. Hint: {hint}", False)
    return _say("right, in all 6 examples", True)


def check_last_confidence(policy: Any) -> bool:
    """`policy`: stops a round once the newest draft's confidence is below 0.5."""
    if not isinstance(policy, Policy):
        return _say("no: make an object of your class, a subclass of sv.Policy", False)
    for confidences in ([0.4], [0.6], [0.5], [0.3, 0.9], [0.9, 0.3], [0.9, 0.8, 0.7]):
        answer = policy.stops(Known(tuple(confidences), (2,) * len(confidences)))
        if answer is None or answer is Ellipsis:
            return _say(_NOT_YET, False)
        if bool(answer) != (confidences[-1] < 0.5):
            return _say(
                f"after confidences {confidences} it {'stops' if answer else 'goes on'}: look at the newest", False
            )
    return _say("right, in all 6 examples", True)


def _by_enumeration(chances: list[float]) -> float:
    """Over every way that the drafts can turn out."""
    total = 0.0
    for outcome in product((True, False), repeat=len(chances)):
        chance = prod(p if stands else 1 - p for p, stands in zip(chances, outcome, strict=True))
        accepted = outcome.index(False) if False in outcome else len(outcome)
        total += chance * (accepted + 1)
    return total


def _say(words: str, right: bool) -> bool:
    print(words)
    return right
