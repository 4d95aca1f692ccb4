"""Checks for the exercises of the notebooks: each tries a reader's function on examples of its own, and says what is
wrong with it. No solution stands here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from selfdraft_viz.lab.calibration import calibration_error, exit_rows
from selfdraft_viz.lab.record import DenseRecord
from selfdraft_viz.schedules import PerLayerTemperature

NOT_YET = "not yet: the function returns nothing"


def check_confidence(function: Callable[..., Any]) -> bool:
    """`function(logits, temperature)`: max softmax(logits / temperature) of (tokens,) logits."""

    def examples() -> Iterable[tuple[tuple[Any, ...], float]]:
        rng = np.random.default_rng(1)
        for scale, temperature in ((1.0, 1.0), (3.0, 2.0), (2.0, 0.5), (400.0, 1.5)):
            logits = rng.normal(size=50) * scale
            behind = (logits - logits.max()) / temperature
            yield (logits, temperature), 1 / np.exp(behind).sum()

    return _check(
        function, examples(), "of logits as large as 400 the exponential overflows: take the largest off first"
    )


def check_calibration_error(function: Callable[..., Any]) -> bool:
    """`function(confidence, agrees)`: the mean over rows of their bin's |mean confidence - agreement|, of ten bins."""

    def examples() -> Iterable[tuple[tuple[Any, ...], float]]:
        rng = np.random.default_rng(2)
        for power in (1.0, 3.0):
            confidence = rng.random(400)
            agrees = rng.random(400) < confidence**power
            yield (confidence, agrees), calibration_error(confidence, agrees).plug_in
        ends = np.array([0.0, 1.0, 1.0]), np.array([False, True, False])
        yield ends, calibration_error(*ends).plug_in

    return _check(function, examples(), "a bin counts for as many rows as it has, and 1.0 belongs to the last bin")


def check_temperature(function: Callable[..., Any], dense: DenseRecord) -> bool:
    """`function(confidences_at, agrees)`: the temperature in 0.5..4 whose confidences make the agreement likeliest, to
    within 5 %; `confidences_at(T)` gives an exit's (rows,) confidences."""

    def examples() -> Iterable[tuple[tuple[Any, ...], float]]:
        from selfdraft_viz.lab.fitting import fit_temperatures

        fitted = fit_temperatures(dense, "agreement")
        for index, layer in enumerate(dense.exit_layers):
            agrees = exit_rows(dense)[index][2]
            yield (_confidences_of(dense, index), agrees), fitted.values[layer]

    return _check(function, examples(), "the likelihood is c where the exit agrees and 1 - c where it does not", 0.05)


def check_commit(function: Callable[..., Any]) -> bool:
    """`function(drafts, true_ids)`: the tokens that a round commits; `true_ids[j]` is the model's own token in place of
    draft j, and there is one more after a last hard token."""
    cases: list[tuple[tuple[list[int], list[int]], list[int]]] = [
        (([5, 6, 7], [5, 6, 7]), [5, 6, 7]),
        (([5, 6, 7], [5, 9, 7]), [5, 9]),
        (([5, 6], [5, 6, 8]), [5, 6, 8]),
        (([], [4]), [4]),
        (([5, 6, 7], [1, 6, 7]), [1]),
        (([5, 6], [5, 9, 3]), [5, 9]),
    ]
    return _check(function, cases, "drafts after the first wrong one are dropped, even where they happen to be right")


def check_catch_up(function: Callable[..., Any]) -> bool:
    """`function(depths, layer)`: the indices of the rows that have to run `layer` so that the newest row, the last of
    `depths`, can; `depths` are the layers each has been through, and never grow from left to right."""
    cases: list[tuple[tuple[list[int], int], list[int]]] = [
        (([16, 16, 4, 2, 2], 3), [3, 4]),
        (([16, 4, 4, 4], 5), [1, 2, 3]),
        (([16, 8, 6, 3], 4), [3]),
        (([16, 2], 3), [1]),
    ]
    return _check(function, cases, "a row needs the keys of every row before it in that layer: which of them lack it?")


def check_draw(function: Callable[..., Any]) -> bool:
    """`function(logits, noise)`: the Gumbel-max draw, the index with the largest logit + noise."""

    def examples() -> Iterable[tuple[tuple[Any, ...], int]]:
        rng = np.random.default_rng(3)
        for _ in range(5):
            logits, noise = rng.normal(size=20), rng.gumbel(size=20)
            yield (logits, noise), int(np.flatnonzero(logits + noise == (logits + noise).max())[0])

    return _check(function, examples(), "the noise is added to the logits, and the largest sum wins")


def _confidences_of(dense: DenseRecord, index: int) -> Callable[[float], Any]:
    layers = dense.exit_layers

    def confidences_at(temperature: float) -> Any:
        schedule = PerLayerTemperature(dict.fromkeys(layers, float(np.clip(temperature, 0.5, 4.0))))
        return exit_rows(dense, schedule)[index][1]

    return confidences_at


def _check(
    function: Callable[..., Any], examples: Iterable[tuple[tuple[Any, ...], Any]], hint: str, tolerance: float = 1e-6
) -> bool:
    count = 0
    for arguments, expected in examples:
        answer = function(*arguments)
        if answer is None or answer is Ellipsis:
            print(NOT_YET)
            return False
        count += 1
        if not _equal(answer, expected, tolerance):
            print(f"example {count}: {_shown(answer)}, expected {_shown(expected)}. Hint: {hint}")
            return False
    print(f"right, in all {count} examples")
    return True


def _equal(answer: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, list):
        return list(answer) == expected
    return bool(abs(float(answer) - expected) <= tolerance * max(1.0, abs(expected)))


def _shown(value: Any) -> str:
    return f"{float(value):.4f}" if isinstance(value, (float, np.floating)) else str(value)
