"""Searches find what replay says is best, and say how sure that is on texts they have not seen."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import optuna
import pandas as pd
import pytest
import recorded
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import selfdraft_viz as sv
from selfdraft_viz.lab.policies import cost_aware
from selfdraft_viz.lab.record import DenseRecord
from selfdraft_viz.lab.replay import replay, replay_kinds, replay_rounds, replay_tokens
from selfdraft_viz.lab.search import Space, ablations, halves, held_out, mean_speedup, search
from selfdraft_viz.lab.whatif import (
    alpha_threshold_grid,
    over_kinds,
    pareto_front,
    replay_table,
    sensitivity,
    token_changes,
    widest_alpha,
)

EXITS = (1, 2, 3)
BASE = sv.Settings(sv.NoAnnealing(), threshold=0.03, max_width=4)


def test_a_search_finds_settings_as_good_as_the_best_of_a_grid() -> None:
    records, costs = recorded.records(), recorded.costs()
    grid = [
        sv.Settings(sv.LinearAnnealing(alpha), threshold, max_width=width, exit_layers=exits)
        for alpha in (-0.5, 0.0, 1.0)
        for threshold in (0.05, 0.1, 0.2, 0.5)
        for width in (1, 4, 16)
        for exits in ((1,), (2,), (3,), (1, 2, 3))
    ]
    best = over_kinds(replay_table(records, costs, grid))["predicted"].max()
    found = search(records, costs, Space(EXITS), trials=120)
    assert found.predicted >= 0.99 * best
    assert found.predicted == pytest.approx(mean_speedup(records, costs, found.settings))
    assert len(found.trials) == 120
    assert found.trials["predicted"].max() == found.predicted
    assert (
        search(records, costs, Space(EXITS), trials=30).settings
        == search(records, costs, Space(EXITS), trials=30).settings
    )


@pytest.mark.parametrize("name", list(ablations(EXITS)))
def test_each_ablation_searches_only_what_it_is_allowed(name: str) -> None:
    space = ablations(EXITS)[name]
    settings = search(recorded.records(), recorded.costs(), space, trials=8).settings
    plan = settings.plan(EXITS, 5)
    kinds = {"no annealing": sv.NoAnnealing, "any temperatures": sv.PerLayerTemperature}
    assert type(settings.schedule) is kinds.get(name, sv.LinearAnnealing)
    if type(settings.schedule) is sv.LinearAnnealing and name not in (
        "any alpha",
        "product of confidences",
        "cost-aware",
    ):
        assert settings.schedule.alpha >= 0, "the paper's annealing strength is at least 0"
    assert (settings.max_width is None) == (name == "no width bound")
    if name == "no depth bound":
        assert max(plan.exit_temperatures) == 3
    policies = {"product of confidences": sv.ProductOfConfidences, "cost-aware": sv.CostAware}
    assert type(settings.policy) is policies.get(name, sv.PaperBounds)
    assert sv.Settings.from_dict(settings.to_dict()) == settings


@examples(40)
@given(name=st.sampled_from(list(ablations(EXITS))), seed=st.integers(0, 1000))
def test_a_space_knows_how_it_came_by_settings(name: str, seed: int) -> None:
    """Breaks when a search that starts at settings of its own space starts elsewhere."""
    space = ablations(EXITS)[name]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    settings = space.suggest(study.ask())
    assert space.suggest(optuna.trial.FixedTrial(space.values(settings, 5))) == settings


@pytest.mark.parametrize("name", list(ablations(EXITS)))
@pytest.mark.parametrize(
    "start",
    [
        sv.Settings(),
        sv.Settings(threshold=sv.NEVER, max_width=40, exit_layers=(2,)),
        sv.Settings(
            sv.PerLayerTemperature({1: 50.0, 2: 0.01, 3: 1.3}), threshold=0.0, policy=sv.ProductOfConfidences(0.99)
        ),
        sv.Settings(sv.LinearAnnealing(9.0), max_depth=2, exit_layers=(2, 3)),
    ],
)
def test_a_search_takes_any_settings_as_its_start(name: str, start: sv.Settings) -> None:
    found = search(recorded.records(), recorded.costs(), ablations(EXITS)[name], trials=1, starts=[start])
    assert len(found.trials) == 2


def test_a_search_is_no_worse_than_its_start() -> None:
    records, costs = recorded.records(), recorded.costs()
    best = search(records, costs, Space(EXITS, alphas=(0.0, 1.5)), trials=60)
    for space in (Space(EXITS), Space(EXITS, policy="product")):
        found = search(records, costs, space, trials=1, starts=[best.settings])
        assert found.trials["predicted"][0] == pytest.approx(best.predicted, rel=0.02)
        assert found.predicted >= found.trials["predicted"][0]


def test_held_out_speedups_are_replayed_and_their_intervals_hold_them() -> None:
    records, costs = recorded.records(texts=6), recorded.costs()
    settings = {"base": BASE, "never": sv.Settings(threshold=sv.NEVER), "same": BASE.replace()}
    table = held_out(records, costs, settings, draws=400).set_index("name")
    for name, one in settings.items():
        assert table.loc[name, "predicted"] == pytest.approx(mean_speedup(records, costs, one))
    assert (table["low"] <= table["predicted"]).all()
    assert (table["predicted"] <= table["high"]).all()
    assert table.loc["same", ["ratio", "ratio_low", "ratio_high"]].tolist() == pytest.approx([1, 1, 1]), "drawn alike"
    expected = table.loc["never", "predicted"] / table.loc["base", "predicted"]
    assert table.loc["never", "ratio"] == pytest.approx(expected)
    other = held_out(records, costs, settings, reference="never", draws=50).set_index("name")
    assert other.loc["base", "ratio"] == pytest.approx(1 / expected)
    with pytest.raises(sv.SettingsError, match="reference='none': use one of 'base'"):
        held_out(records, costs, settings, reference="none")


def test_halves_share_no_text() -> None:
    records = recorded.records(texts=5)
    one, other = halves(records)
    for kind, record in records.items():
        assert len(one[kind].token_ids) == 3
        assert len(other[kind].token_ids) == 2
        rejoined = np.concatenate([one[kind].token_ids, other[kind].token_ids])
        assert sorted(rejoined.tolist()) == sorted(record.token_ids.tolist())
        whole = replay(record, BASE).counts
        assert (replay(one[kind], BASE).counts + replay(other[kind], BASE).counts == whole).all()
    with pytest.raises(sv.SettingsError, match="record at least 2"):
        halves(recorded.records(texts=1))


def test_a_cost_aware_policy_prices_a_row_and_a_token() -> None:
    """Dear drafting makes it stop at once, free drafting never; and it is worth no less than stopping nowhere."""
    records, settings = recorded.records(), sv.Settings(sv.NoAnnealing(), 0.0, max_width=None, exit_layers=(1,))
    costs = recorded.costs()
    policy = cost_aware(costs, records, settings)
    total = sum(replay(record, settings.replace(policy=policy)).counts for record in records.values())
    tokens, seconds = total[0], float(costs.seconds_per_token(total))
    assert policy.token_value == pytest.approx(seconds, rel=0.2)
    assert tokens == 2 * 4 * (recorded.NEW_TOKENS - 1)
    dear = cost_aware(recorded.costs(exit_check=50.0), records, settings)
    assert dear.draft_cost > 0.05
    bold, careful = (
        mean_speedup(records, costs, settings),
        mean_speedup(records, costs, settings.replace(policy=policy)),
    )
    assert careful > bold, "bad exits and no width bound: stopping early must pay"


def test_kinds_replayed_together_are_kinds_replayed_one_by_one() -> None:
    """Also where their texts differ in length, so that they cannot be one record."""
    records = recorded.records()
    shorter = dataclasses.replace(
        records["high"],
        **{name: getattr(records["high"], name)[:, :-5] for name in ("token_ids", "true_ids", "exit_ids")},
        log_partition=records["high"].log_partition[:, :-5],
    )
    settings = [BASE, BASE.replace(threshold=0.01, max_width=2)]
    for some in (records, {"low": records["low"], "high": shorter}):
        together = replay_kinds(some, settings)
        for counts, record in zip(together, some.values(), strict=True):
            for row, one in zip(counts, settings, strict=True):
                assert row.tolist() == replay(record, one).counts.tolist()
    joined = DenseRecord.joined(records)
    assert joined.of_kind("high").token_ids.tolist() == records["high"].token_ids.tolist()
    with pytest.raises(sv.SettingsError, match="2 records of 2 shapes"):
        DenseRecord.joined({"low": records["low"], "high": shorter})


def test_tables_say_what_replay_says() -> None:
    records, costs = recorded.records(), recorded.costs()
    table = replay_table(records, costs, [BASE, sv.Settings(threshold=sv.NEVER)])
    assert table["kind"].tolist() == ["low", "low", "high", "high"]
    total = replay(records["low"], BASE)
    first = table.iloc[0]
    assert first["acceptance_rate"] == pytest.approx(total.acceptance_rate)
    assert first["tokens_per_round"] == pytest.approx(total.tokens_per_round)
    assert first["mean_exit_depth"] == pytest.approx(total.mean_exit_depth)
    assert first["layer_passes_per_token"] == pytest.approx(total.layer_passes_per_token)
    assert first["predicted"] == pytest.approx(float(costs.speedup(total)))
    assert math.isnan(table.iloc[1]["acceptance_rate"])
    means = over_kinds(table)
    assert means.loc[0, "predicted"] == pytest.approx(mean_speedup(records, costs, BASE))
    grid = alpha_threshold_grid(records, costs, BASE, [0.0, 1.0], [0.03, 0.3])
    assert grid[["alpha", "threshold"]].to_numpy().tolist() == [[0, 0.03], [0, 0.3], [1, 0.03], [1, 0.3]]
    assert grid.loc[0, "predicted"] == pytest.approx(means.loc[0, "predicted"])


def test_sensitivity_moves_one_setting_at_a_time() -> None:
    records, costs = recorded.records(), recorded.costs()
    base = sv.Settings(sv.LinearAnnealing(0.3), threshold=0.1, max_width=4, exit_layers=(1, 3))
    table = sensitivity(records, costs, base)
    assert set(table["setting"]) == {"threshold", "alpha", "max_width", "exit_layers"}
    here = mean_speedup(records, costs, base)
    for name in ("threshold", "alpha", "max_width"):
        assert table.loc[table["is_base"] & (table["setting"] == name), "predicted"].tolist() == pytest.approx([here])
    row = table[(table["setting"] == "exit_layers") & (table["label"] == "without 3")].iloc[0]
    assert row["predicted"] == pytest.approx(mean_speedup(records, costs, base.replace(exit_layers=(1,))))
    alone = sensitivity(records, costs, base.replace(exit_layers=(2,)))
    labels = alone.loc[alone["setting"] == "exit_layers", "label"].tolist()
    assert labels == ["with 1", "with 3"], "the only exit cannot be left out"
    assert widest_alpha(EXITS, 5) == pytest.approx(3 / 0.8)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30))
def test_no_point_beats_one_on_the_front(points: list[tuple[int, int]]) -> None:
    table = pd.DataFrame(points, columns=["acceptance_rate", "tokens_per_round"], dtype=float)
    front = pareto_front(table)
    for index, (x, y) in enumerate(points):
        beaten = any((a >= x and b >= y) and (a > x or b > y) for a, b in points)
        if front[index]:
            assert not beaten
        elif not beaten:  # an equal point may stand for it
            assert any(front[other] and points[other] == (x, y) for other in range(len(points)))


@examples(20)
@given(one=st.floats(0, 0.3), other=st.floats(0, 0.3))
def test_what_would_change_is_told_for_every_token(one: float, other: float) -> None:
    record = recorded.records()["low"]
    before, after = BASE.replace(threshold=one), BASE.replace(threshold=other)
    changes = token_changes(record, 1, before, after)
    assert changes["token_id"].tolist() == record.true_ids[1, 3:].tolist()
    assert changes["exit_depth_after"].tolist() == replay_tokens(record, after, 1)["exit_depth"].tolist()
    assert (changes["change"] == "earlier").tolist() == (
        changes["exit_depth_after"] < changes["exit_depth_before"]
    ).tolist()
    if one == other:
        assert set(changes["change"]) == {""}
    assert changes["round_before"].max() + 1 == len(replay_rounds(record, before, 1))


def test_a_space_is_kept_as_it_is_given() -> None:
    assert dataclasses.replace(Space(EXITS), most_exits=1).most_exits == 1
    with pytest.raises(sv.SettingsError, match="trials=0"):
        search(recorded.records(), recorded.costs(), Space(EXITS), trials=0)
