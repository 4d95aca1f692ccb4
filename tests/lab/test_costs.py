"""Prices come out of intervals as they went in, and a prediction is work times prices."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import recorded
import strategies
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import selfdraft_viz as sv
from selfdraft_viz.events import Committed, Event, ExitCheck, LayersRan, Verified
from selfdraft_viz.lab import measuring
from selfdraft_viz.lab.costs import PARTS, Costs, measure_costs
from selfdraft_viz.lab.paired import (
    compare_predictions,
    error_distribution,
    measure_paired,
    measured_speedups,
    varied_settings,
)
from selfdraft_viz.lab.replay import replay

PRICES = {"layer": 1.0, "second_row": 0.2, "further_row": 0.05, "run": 0.1, "exit_check": 0.4, "first_check": 0.15,
          "head": 1.5, "head_row": 0.02, "draft": 0.3, "round": 0.25}  # fmt: skip


def retimed(events: Iterable[Event]) -> list[Event]:
    """`events`, told at the times that PRICES say. Layers of one pass are told together, as decoding tells them."""
    clock, made, waiting = 0.0, [], []
    committed, opens = False, True
    for event in events:
        if isinstance(event, LayersRan) and event.phase != "prefill":
            rows, layers = event.stop_position - event.first_position, event.last_layer - event.first_layer + 1
            opens_a_row = event.phase == "draft" and event.first_layer == 1
            clock += PRICES["draft" if opens_a_row else "run"] + layers * PRICES["layer"]
            clock += layers * (rows > 1) * (PRICES["second_row"] + (rows - 2) * PRICES["further_row"])
            waiting.append(event)
            committed = False
            continue
        made += [dataclasses.replace(one, seconds=clock) for one in waiting]
        waiting = []
        if isinstance(event, ExitCheck):
            clock += PRICES["exit_check"] + PRICES["first_check"] * opens
            opens = False
        elif isinstance(event, Verified):
            clock += PRICES["head"] + (len(event.true_ids) - 1) * PRICES["head_row"]
            opens = True
        elif isinstance(event, Committed) and event.kind != "first" and not committed:
            clock, committed = clock + PRICES["round"], True
        made.append(dataclasses.replace(event, seconds=clock) if hasattr(event, "seconds") else event)
    return made


@examples(20)
@given(decode=strategies.decodes())
def test_intervals_account_for_all_time_between_the_first_and_the_last_token(decode: strategies.Decode) -> None:
    """Breaks when a part of decoding is in no interval, or in two."""
    events = retimed(decode.stream(detail="checks"))
    spent = sum(seconds for _, seconds in measuring.intervals(events))
    times = [event.seconds for event in events if isinstance(event, Committed)]
    assert spent == pytest.approx(times[-1] - times[0])
    for work, seconds in measuring.intervals(events):
        assert seconds == pytest.approx(np.dot(work, [PRICES[part] for part in PARTS]))


def test_the_fit_gives_back_the_prices_that_made_the_times() -> None:
    model = recorded.model()
    cells: dict[tuple[float, ...], list[float]] = {}
    for settings in [*measuring.probing_settings(model.exit_layers), sv.Settings(threshold=0.02, max_width=4)]:
        for text in range(3):
            events = list(model.stream([text, 5, 9], settings, max_new_tokens=30, detail="checks"))
            for work, seconds in measuring.intervals(retimed(events)):
                cells.setdefault(work, []).append(seconds)
    fitted = dict(zip(PARTS, measuring.fit(cells), strict=True))
    assert fitted == pytest.approx(PRICES, abs=1e-6)


@examples(25)
@given(threshold=st.floats(0, 0.3), width=st.sampled_from([1, 2, 4, None]), exits=st.sampled_from([None, (2,), (1, 3)]))
def test_a_prediction_is_the_time_that_the_prices_give_a_decode(threshold, width, exits) -> None:
    """Breaks when a replay's counts and a decode's events stand for different work."""
    model, dense = recorded.model(), recorded.records()["low"]
    settings = sv.Settings(sv.NoAnnealing(), threshold, max_width=width, exit_layers=exits)
    expected = tokens = 0.0
    for prompt in dense.token_ids[:, :3].tolist():
        trace = model.generate(prompt, settings, max_new_tokens=recorded.NEW_TOKENS)
        if (trace.drafts["outcome"] == "dropped").any() or (trace.rounds["ended_with"] == "correction").any():
            return
        checks = trace.exit_checks
        if ((checks["confidence"] - threshold).abs() < 2e-4).any():
            return
        events = list(model.stream(prompt, settings, max_new_tokens=recorded.NEW_TOKENS, detail="checks"))
        times = [event.seconds for event in retimed(events) if isinstance(event, Committed)]
        expected, tokens = expected + times[-1] - times[0], tokens + len(times) - 1
    prices = Costs(np.array([[PRICES[part] for part in PARTS]]), np.array([7.0]), 5, {})
    assert float(prices.seconds_per_token(replay(dense, settings))) == pytest.approx(expected / tokens)
    assert float(prices.speedup(replay(dense, settings))) == pytest.approx(7.0 * tokens / expected)


def test_costs_are_measured_on_a_real_model_and_saved(tmp_path: Path) -> None:
    model = recorded.model()
    costs = measure_costs(model, new_tokens=10, repeats=3)
    assert set(costs.seconds) == set(PARTS)
    assert costs.seconds["layer"] > 0
    assert costs.seconds["head"] > 0
    assert all(price >= 0 for price in costs.seconds.values())
    assert (costs.plain > 0).all()
    assert costs.hardware["processor"]
    assert costs.hardware["dtype"] == "float64"
    loaded = Costs.load(costs.save(tmp_path / "costs.json"))
    assert (loaded.fits == costs.fits).all()
    assert loaded.seconds == costs.seconds
    assert loaded.name == costs.name


class Stalling:
    """A model whose decodes take PRICES, an ordinary token PLAIN; being watched costs, and at times all stands."""

    PLAIN = 7.0

    def __init__(self) -> None:
        self.model, self.rng = recorded.model(), np.random.default_rng(0)

    def __getattr__(self, name: str) -> object:
        return getattr(self.model, name)

    def stream(self, prompt, settings, detail: str, **options) -> Iterator[Event]:
        watched = detail != "tokens"
        for event in self.delayed(retimed(self.model.stream(prompt, settings, detail="checks", **options)), watched):
            if watched or not isinstance(event, (LayersRan, ExitCheck)):
                yield event

    def stream_plain(self, prompt, **options) -> Iterator[Event]:
        told = [event for event in self.model.stream_plain(prompt, **options) if isinstance(event, Committed)]
        yield from self.delayed(
            [dataclasses.replace(event, seconds=self.PLAIN * place) for place, event in enumerate(told)], False
        )

    def delayed(self, events: list[Event], watched: bool) -> Iterator[Event]:
        before = clock = 0.0
        for event in events:
            if not hasattr(event, "seconds"):
                yield event
                continue
            passed, before = event.seconds - before, event.seconds
            clock += passed + 10.0 * self.rng.poisson(0.01 * passed) + 0.1 * watched * isinstance(event, ExitCheck)
            yield dataclasses.replace(event, seconds=clock)


def test_delays_and_being_watched_do_not_make_predictions_rosy() -> None:
    """Breaks when what delays short parts is left out of the prices, and what delays an ordinary token is not."""
    stalling, dense = Stalling(), recorded.records()["low"]
    costs = measuring.measure(stalling, [[1, 5, 9], [2, 5, 9]], new_tokens=30, repeats=3)
    true = Costs(np.array([[PRICES[part] for part in PARTS]]), np.array([Stalling.PLAIN]), 5, {})
    for settings in varied_settings((1, 2, 3), 8).values():
        counts = replay(dense, settings)
        assert float(costs.speedup(counts)) == pytest.approx(float(true.speedup(counts)), rel=0.03)


def test_uncertainty_is_that_of_the_repeats() -> None:
    dense = recorded.records()["low"]
    counts = replay(dense, sv.Settings(sv.NoAnnealing(), 0.05))
    costs = recorded.costs()
    low, high = costs.speedup_interval(counts)
    assert low < costs.speedup(counts) < high
    assert costs.standard_errors["layer"] == pytest.approx(0.001 * 0.01 / np.sqrt(3))
    assert np.isnan(recorded.costs(repeats=1).speedup_interval(counts)[0])


def test_bad_cost_files_and_measurements_are_refused(tmp_path: Path) -> None:
    with pytest.raises(sv.LoadError, match="there is no file"):
        Costs.load(tmp_path / "none.json")
    (tmp_path / "other.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(sv.LoadError, match="holds no costs"):
        Costs.load(tmp_path / "other.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(sv.LoadError, match="damaged"):
        Costs.load(tmp_path / "bad.json")
    with pytest.raises(sv.SettingsError, match="at least 8 tokens"):
        measure_costs(recorded.model(), new_tokens=2)


def test_paired_runs_are_of_the_recorded_texts() -> None:
    """Rounds, drafts and tokens of the real runs are those of the replay; the error is that of the prediction."""
    model, dense = recorded.model(), recorded.records()["low"]
    settings = {"a": sv.Settings(sv.NoAnnealing(), 0.0, max_width=2, exit_layers=(1,)), "b": sv.Settings(threshold=0.9)}
    done: list[tuple[int, int]] = []
    runs = measure_paired(model, dense, settings, repeats=2, progress=lambda *told: done.append(told))
    assert len(runs) == 2 * 2 * len(dense.token_ids)
    assert runs["equal"].all()
    assert done[-1][0] == done[-1][1]
    table = compare_predictions(dense, recorded.costs(), settings, runs)
    assert table["tokens_per_round"].tolist() == table["predicted_tokens_per_round"].tolist()
    assert table["error"].tolist() == (table["predicted"] / table["measured"] - 1).tolist()
    assert (table["measured_low"] <= table["measured"]).all()
    held = runs.assign(seconds=runs["seconds"].where(runs.index != 0, 100.0))  # one decode of three was held up
    thrice = pd.concat([held, runs.assign(repeat=2), runs.assign(repeat=3)])
    even = measured_speedups(pd.concat([runs, runs.assign(repeat=2), runs.assign(repeat=3)]))
    assert measured_speedups(thrice)["measured"].tolist() == pytest.approx(even["measured"].tolist(), rel=0.5)
    assert measured_speedups(thrice)["measured_low"].iloc[0] < 0.01
    assert table["equal"].all()
    with pytest.raises(sv.SettingsError, match="at least one setting"):
        measure_paired(model, dense, {})


def test_errors_are_summed_up_by_size_and_sign() -> None:
    found = error_distribution([-0.1, 0.02, 0.04, 0.01, -0.3])
    assert found == pytest.approx({"median": 0.04, "90 %": 0.22, "largest": 0.3, "bias": 0.01})


def test_varied_settings_fit_and_differ() -> None:
    settings = varied_settings((2, 3, 4, 6, 8), 24)
    assert len(set(settings.values())) == 24
    for one in settings.values():
        one.plan((2, 3, 4, 6, 8), 16)
