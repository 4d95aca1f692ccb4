"""The speed bench: same work for every contender, honest statistics. No test here holds a speed."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

import selfdraft_viz as sv
from selfdraft_viz.lab.bench import BenchOptions, run_bench
from selfdraft_viz.lab.bench_report import BenchReport, first_difference, paired_ratios, repeated_share
from selfdraft_viz.lab.contenders import CONTENDERS, load_stock
from selfdraft_viz.lab.texts import Prompt

PROMPTS = [Prompt("low", (3, 1, 4, 1, 5)), Prompt("low", (2, 7, 1, 8)), Prompt("high", (90, 80, 70))]
SETTINGS = sv.Settings(sv.NoAnnealing(), threshold=0.3)


def bench(family: str, prompts: list[Prompt] = PROMPTS, **options: Any) -> BenchReport:
    model = tiny.load(family)
    chosen = BenchOptions(**{"new_tokens": 12, "repeats": 1, **options})
    return run_bench(model, prompts, SETTINGS, chosen, stock=copy.deepcopy(tiny.base(family)))


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "phi3 sliding"])
def test_every_contender_makes_the_same_tokens(family: str) -> None:
    """In float64; the first three are transformers' own ways, the last two ours."""
    report = bench(family)
    assert report.left_out == {}
    assert report.reference == "transformers"
    assert set(report.outputs) == set(CONTENDERS)
    assert report.runs["first_difference"].isna().all()
    for outputs in report.outputs.values():
        assert [len(token_ids) for token_ids in outputs] == [12, 12, 12]


def test_end_of_sequence_tokens_end_nothing_and_are_not_forbidden() -> None:
    """With `min_new_tokens`, transformers would say something else where it would have said the end."""
    model, stock = tiny.load("llama"), copy.deepcopy(tiny.base("llama"))
    greedy = model.generate_plain((3, 1, 4), max_new_tokens=12).token_ids
    stock.generation_config.eos_token_id = greedy[4]
    with tiny.ends_with(model, [greedy[4]]):
        report = run_bench(
            model, [Prompt("one", (3, 1, 4))], SETTINGS, BenchOptions(new_tokens=12, repeats=1), stock=stock
        )
    assert report.outputs == {key: [greedy] for key in CONTENDERS}


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_early_exit_is_left_out_where_transformers_runs_all_layers(family: str) -> None:
    report = bench(family)
    assert set(report.left_out) == {"early-exit"}
    assert "runs all layers" in report.left_out["early-exit"]
    assert set(report.runs["contender"]) == set(CONTENDERS) - {"early-exit"}
    assert tiny.base(family).config.num_hidden_layers == 5


def test_the_fastest_early_exit_layer_of_those_tried_is_timed() -> None:
    contender = bench("llama", contenders=("early-exit", "plain"), early_exit_layers=(1, 3)).contenders["early-exit"]
    tried = contender["seconds_by_exit_layer_tried"]
    assert list(tried) == [1, 3]
    assert all(seconds > 0 for seconds in tried.values())
    assert contender["generate"]["assistant_early_exit"] == min(tried, key=tried.get)


def test_order_rotates_so_that_nobody_is_always_first() -> None:
    report = bench("llama", contenders=("transformers", "plain", "self-draft"), repeats=3)
    places = Counter(zip(report.runs["contender"], report.runs["place"], strict=True))
    assert len(places) == 9
    assert set(places.values()) == {3}
    fixed = bench("llama", contenders=("plain", "self-draft"), order="fixed").runs
    assert set(zip(fixed["contender"], fixed["place"], strict=True)) == {("plain", 0), ("self-draft", 1)}
    shuffled = [bench("llama", contenders=("plain", "self-draft"), order="shuffled", seed=7).runs for _ in range(2)]
    assert list(shuffled[0]["contender"]) == list(shuffled[1]["contender"])


def test_the_figures_are_those_of_the_decodes() -> None:
    report = bench("llama", contenders=("plain", "self-draft"))
    traces = [
        tiny.load("llama").generate(prompt.text, SETTINGS, max_new_tokens=12, stop_at_end=False) for prompt in PROMPTS
    ]
    drafts = pd.concat([trace.drafts for trace in traces])
    rounds = pd.concat([trace.rounds for trace in traces])
    assert len(drafts), "these settings draft something"
    row = report.summary().query("kind == 'all' and contender == 'self-draft'").iloc[0]
    assert row["acceptance_rate"] == pytest.approx(rounds["accepted"].sum() / rounds["drafted"].sum())
    assert row["tokens_per_round"] == pytest.approx(rounds["committed"].sum() / len(rounds))
    assert row["mean_exit_depth"] == pytest.approx(drafts["exit_depth"].mean())
    plain = report.summary().query("kind == 'all' and contender == 'plain'").iloc[0]
    assert plain["layer_passes_per_token"] == 5


def test_a_report_is_json(tmp_path: Path) -> None:
    report = bench("llama")
    data = json.loads(report.save(tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert data["options"]["new_tokens"] == 12
    assert len(data["runs"]) == len(report.runs)
    assert {row["kind"] for row in data["summary"]} == {"low", "high", "all"}
    assert data["environment"]["torch"] == torch.__version__
    assert data["environment"]["threads"] == torch.get_num_threads()
    assert sv.Settings.from_dict(data["contenders"]["self-draft"]["settings"]) == SETTINGS
    assert data["outputs"]["plain"] == report.outputs["plain"]


def test_the_stock_model_is_transformers_own(embedded: sv.Model) -> None:
    """Whatever our base carries in its linear layers must not be timed as transformers."""
    stock = load_stock(embedded)
    assert stock is not embedded.base
    kinds = {type(module) for module in stock.modules() if type(module).__name__.endswith("Linear")}
    assert kinds == {torch.nn.Linear}
    assert stock.dtype == embedded.dtype
    prompt = embedded.encode("Once upon a time")
    theirs = stock(torch.tensor([prompt])).logits[0, -1].argmax()
    assert int(theirs) == embedded.generate_plain(prompt, max_new_tokens=1).token_ids[0]


def test_a_model_from_memory_needs_its_stock() -> None:
    with pytest.raises(sv.LoadError, match="stock="):
        run_bench(tiny.load("llama"), PROMPTS, SETTINGS, BenchOptions(new_tokens=2, repeats=1))


def test_bad_input_is_refused_before_anything_is_decoded() -> None:
    told: list[str] = []
    stock = copy.deepcopy(tiny.base("llama"))

    def refused(prompts: list[Prompt], settings: sv.Settings = SETTINGS, **options: Any) -> None:
        run_bench(
            tiny.load("llama"),
            prompts,
            settings,
            BenchOptions(**options),
            stock=stock,
            progress=lambda done, total, what: told.append(what),
        )

    with pytest.raises(sv.PromptError, match="no prompts"):
        refused([])
    with pytest.raises(sv.SettingsError, match="context"):
        refused([*PROMPTS, Prompt("long", (1,) * 60)], new_tokens=12)
    with pytest.raises(sv.SettingsError, match="max_depth=9"):
        refused(PROMPTS, SETTINGS.replace(max_depth=9), new_tokens=12)
    with pytest.raises(sv.SettingsError, match=r"1\.\.4"):
        refused(PROMPTS, new_tokens=12, early_exit_layers=(5,))
    with pytest.raises(sv.SettingsError, match="choose from"):
        refused(PROMPTS, contenders=("medusa",))
    with pytest.raises(sv.SettingsError, match="once"):
        refused(PROMPTS, contenders=("plain", "plain"))
    with pytest.raises(sv.SettingsError, match="repeats=0"):
        refused(PROMPTS, repeats=0)
    assert told == []


def report_of(seconds: dict[str, list[float]], differs: dict[str, int | None]) -> BenchReport:
    """A report with these measured seconds: one prompt of kind "a", one repeat for each."""
    rows = [
        {"kind": "a", "prompt": 0, "repeat": repeat, "contender": key, "place": 0, "seconds": value}
        for key, values in seconds.items()
        for repeat, value in enumerate(values)
    ]
    runs = pd.DataFrame(rows)
    runs["first_difference"] = pd.array([differs.get(key) for key in runs["contender"]], dtype="Int64")
    contenders = {key: {"title": key} for key in seconds}
    return BenchReport(
        runs=runs,
        decodes=pd.DataFrame(columns=["prompt", "contender"]),
        outputs={},
        prompts=[{"kind": "a", "repetition": 0.25}],
        contenders=contenders,
        left_out={},
        reference="transformers",
        model={},
        environment={},
        options={"new_tokens": 10},
    )


def test_ratios_are_paired_and_medians_are_medians() -> None:
    """Each repeat slows both down alike: the paired ratio does not see it, a ratio of medians would."""
    report = report_of(
        {"transformers": [2.0, 8.0, 6.0], "plain": [1.0, 4.0, 2.0], "self-draft": [0.5, 1.0, 2.0]}, {"self-draft": 7}
    )
    rows = report.summary().set_index("contender")
    assert rows.loc["transformers", "seconds_per_token"] == pytest.approx(0.6)
    assert list(paired_ratios(report.runs, "plain", "transformers")) == [2.0, 2.0, 3.0]
    assert rows.loc["plain", "speed_to_transformers"] == 2.0
    assert rows.loc["self-draft", "speed_to_plain"] == 2.0  # of 2, 4, 1
    assert rows.loc["self-draft", "speed_to_plain_low"] == 1.5
    assert rows.loc["self-draft", "speed_to_plain_high"] == 3.0
    assert rows.loc["self-draft", "equal"] == 0
    assert rows.loc["self-draft", "first_difference"] == 7
    assert rows.loc["plain", "equal"] == rows.loc["plain", "runs"] == 3
    assert rows.loc["plain", "repetition"] == 0.25


tokens = st.lists(st.integers(0, 3), max_size=30)


@given(tokens, tokens)
def test_first_difference_is_where_two_texts_part(ours: list[int], theirs: list[int]) -> None:
    index = first_difference(ours, theirs)
    if index is None:
        assert ours == theirs
    else:
        assert ours[:index] == theirs[:index]
        assert ours[index : index + 1] != theirs[index : index + 1]


@given(tokens)
def test_repeated_share_counts_what_has_been_said_before(token_ids: list[int]) -> None:
    grams = [tuple(token_ids[i : i + 4]) for i in range(len(token_ids) - 3)]
    again = sum(gram in grams[:i] for i, gram in enumerate(grams))
    assert repeated_share(token_ids) == pytest.approx(again / len(grams) if grams else 0)
