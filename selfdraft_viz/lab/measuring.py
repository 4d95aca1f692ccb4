"""The measurement behind `measure_costs`: intervals between the events of real decodes, and the fit to them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from selfdraft_viz.events import Committed, Event, ExitCheck, LayersRan, Verified
from selfdraft_viz.lab.costs import PARTS, Costs
from selfdraft_viz.lab.texts import shipped_prompts
from selfdraft_viz.schedules import NoAnnealing
from selfdraft_viz.settings import NEVER, Settings

if TYPE_CHECKING:
    from selfdraft_viz.model import Model

_BETWEEN_PLAIN = 3  # self-draft decodes between two ordinary ones


def measure(model: Model, prompts: Sequence[str | Sequence[int]] | None, new_tokens: int, repeats: int) -> Costs:
    if prompts is None:
        some = [prompt.text for prompt in shipped_prompts(per_kind=1)][:2]
        prompts = some if model.tokenizer is not None else [[0, 1, 2, 3]]
    ids = [model.encode(prompt) for prompt in prompts]
    probes = probing_settings(model.exit_layers)
    options: dict[str, Any] = {"max_new_tokens": new_tokens, "stop_at_end": False, "detail": "tokens"}
    groups = [probes[first : first + _BETWEEN_PLAIN] for first in range(0, len(probes), _BETWEEN_PLAIN)]
    fits, plain = [], []
    for repeat in range(repeats + 1):
        cells: dict[tuple[float, ...], list[float]] = defaultdict(list)
        ordinary: list[float] = []
        untold = 0.0
        for prompt_ids in ids:
            before = _token_seconds(model.stream_plain(prompt_ids, **options))
            for group in groups:
                made: list[tuple[tuple[float, ...], float]] = []
                bare = 0.0
                for probe in group:
                    made += intervals(model.stream(prompt_ids, probe, **{**options, "detail": "checks"}))
                    bare += _rounds_seconds(model.stream(prompt_ids, probe, **options))
                after = _token_seconds(model.stream_plain(prompt_ids, **options))
                pace = typical(before + after)  # a machine's pace drifts: everything is set against it
                for work, seconds in made:
                    cells[work].append(seconds / pace)
                untold += bare / pace
                ordinary += before
                before = after
            ordinary += before
        if repeat:  # the first is a warm-up
            plain.append(typical(ordinary))
            prices = fit(cells)
            priced = sum(len(seconds) * float(np.dot(work, prices)) for work, seconds in cells.items())
            # Parts are timed while they are told, and their short delays left out; rounds as a whole are neither.
            fits.append(prices * plain[-1] * untold / priced)
    noted = model.generate_plain(ids[0][:1], max_new_tokens=1)
    hardware = {**noted.environment, **noted.model, "date": time.strftime("%Y-%m-%d", time.gmtime())}
    return Costs(np.array(fits), np.array(plain), model.num_layers, hardware)


def probing_settings(exit_layers: Sequence[int]) -> list[Settings]:
    """Settings under which each part is paid for in different amounts: nothing drafted, one token, several, many; from
    the shallowest exit, the deepest, and a mixture, so that rows have to catch up."""
    shallow, deep = (exit_layers[0],), (exit_layers[-1],)
    flat = NoAnnealing()
    return [
        Settings(flat, NEVER, exit_layers=shallow),
        Settings(flat, NEVER),
        Settings(flat, 0.0, max_width=1, exit_layers=deep),
        Settings(flat, 0.0, max_width=2, exit_layers=shallow),
        Settings(flat, 0.0, max_width=4, exit_layers=shallow),
        Settings(flat, 0.0, max_width=8, exit_layers=deep),
        Settings(flat, 0.0, max_width=16, exit_layers=shallow),
        Settings(flat, 0.3, max_width=6),
        Settings(flat, 0.7, max_width=6),
    ]


def intervals(events: Iterable[Event]) -> Iterator[tuple[tuple[float, ...], float]]:
    """The work between the events of a self-draft decode, (PARTS,) amounts, and its seconds.

    The prefill is left out. Runs of layers that follow one another, told together, are one interval, and so are the
    commits of a round and the next round's first run of layers.
    """
    before: float | None = None
    opens = True  # no check of the round yet
    amounts: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    pending = 0.0

    def done() -> Iterator[tuple[tuple[float, ...], float]]:
        nonlocal pending
        if any(amounts.values()):
            yield tuple(amounts.values()), pending
        amounts.update(dict.fromkeys(PARTS, 0.0))
        pending = 0.0

    for event in events:
        seconds = getattr(event, "seconds", None)
        if seconds is None or (isinstance(event, LayersRan) and event.phase == "prefill"):
            continue
        elapsed = 0.0 if before is None else seconds - before
        before = seconds
        if isinstance(event, LayersRan):
            for part, amount in _run(event).items():
                amounts[part] += amount
            pending += elapsed
        elif isinstance(event, ExitCheck):
            yield from done()
            amounts["exit_check"], amounts["first_check"], pending = 1.0, float(opens), elapsed
            opens = False
            yield from done()
        elif isinstance(event, Verified):
            yield from done()
            amounts["head"], amounts["head_row"], pending = 1.0, len(event.true_ids) - 1.0, elapsed
            opens = True
            yield from done()
        elif isinstance(event, Committed) and event.kind != "first":
            amounts["round"] = 1.0
            pending += elapsed
    yield from done()


def _run(event: LayersRan) -> dict[str, float]:
    rows, layers = event.stop_position - event.first_position, event.last_layer - event.first_layer + 1
    opens_a_row = event.phase == "draft" and event.first_layer == 1
    several = {"second_row": layers, "further_row": layers * (rows - 2)} if rows > 1 else {}
    return {"layer": layers, "draft" if opens_a_row else "run": 1, **several}


def fit(cells: dict[tuple[float, ...], list[float]]) -> NDArray[np.float64]:
    """(PARTS,) prices, none below 0, that best explain the typical seconds of each kind of work.

    Least squares of the relative errors of kinds of work, weighted by the time spent on each.
    """
    work = np.array(list(cells))
    seconds = np.array([typical(values) for values in cells.values()])
    weight = np.sqrt(np.array([len(values) for values in cells.values()]) / seconds)
    free = list(range(len(PARTS)))
    prices = np.zeros(len(PARTS))
    while free:
        solution, *_ = np.linalg.lstsq(work[:, free] * weight[:, None], seconds * weight, rcond=None)
        if (solution >= 0).all():
            prices[free] = solution
            break
        free = [part for part, price in zip(free, solution, strict=True) if price > 0]
    return prices


def typical(seconds: Sequence[float]) -> float:
    """The mean, with what took over three times the median (an interruption) counted as three times. Not the median:
    delays are skewed, and medians of parts would add up to less than the median of the whole."""
    values = np.asarray(seconds)
    return float(np.minimum(values, 3 * np.median(values)).mean())


def _rounds_seconds(events: Iterable[Event]) -> float:
    """Of all rounds of a self-draft decode together."""
    ends = []
    for event in events:
        if isinstance(event, Verified) or (isinstance(event, Committed) and event.kind == "first"):
            ends.append(event.seconds)
    rounds = np.diff(ends).tolist()
    return typical(rounds) * len(rounds) if rounds else 0.0


def _token_seconds(events: Iterable[Event]) -> list[float]:
    """Of each token of ordinary decoding after the first."""
    return np.diff([event.seconds for event in events if isinstance(event, Committed)]).tolist()
