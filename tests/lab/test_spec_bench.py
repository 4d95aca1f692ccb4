"""Spec-Bench files become prompts by task, and a bench of them a table by task."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import tiny

import selfdraft_viz as sv
from selfdraft_viz.lab.bench import BenchOptions, run_bench
from selfdraft_viz.lab.bench_report import paired_ratios
from selfdraft_viz.lab.spec_bench import TASKS, read_spec_bench, task_table
from selfdraft_viz.lab.texts import Prompt


def questions(path: Path, *rows: tuple[str, str]) -> Path:
    path.write_text("\n".join(json.dumps({"category": kind, "turns": [text, "more"]}) for kind, text in rows))
    return path


def test_categories_become_tasks_and_long_prompts_lose_their_beginning(embedded: sv.Model, tmp_path: Path) -> None:
    file = questions(tmp_path / "q.jsonl", ("qa", "Who?"), ("stem", "Why?"), ("coding", "How?"), ("rag", "a b " * 999))
    read = read_spec_bench(file, embedded, new_tokens=16)
    assert [prompt.kind for prompt in read.prompts] == [
        "multi-turn conversation", "multi-turn conversation", "question answering", "retrieval-augmented generation",
    ]  # fmt: skip
    assert read.cut == 1
    whole = embedded.encode("a b " * 999)
    assert read.prompts[3].text == whole[-(embedded.context_length - 16) :]
    assert read.prompts[2].text == embedded.encode("Who?")
    assert len(read_spec_bench(file, embedded, 16, per_task=1).prompts) == 3


def test_a_chat_template_wraps_each_prompt(embedded: sv.Model, tmp_path: Path) -> None:
    file = questions(tmp_path / "q.jsonl", ("qa", "Who?"))
    tokenizer = copy.deepcopy(embedded.tokenizer)
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %} =>"
    chatting = sv.load(embedded.base, tokenizer=tokenizer, heads=embedded.heads)
    (prompt,) = read_spec_bench(file, chatting, 16).prompts
    assert tokenizer.decode(prompt.text) == "[user] Who? =>"


def test_files_that_are_not_of_spec_bench_are_refused(embedded: sv.Model, tmp_path: Path) -> None:
    with pytest.raises(sv.PromptError, match="prompts of poems: Spec-Bench's categories are writing"):
        read_spec_bench(questions(tmp_path / "q.jsonl", ("poems", "x")), embedded, 16)
    with pytest.raises(sv.LoadError, match="no file"):
        read_spec_bench(tmp_path / "none.jsonl", embedded, 16)
    with pytest.raises(sv.PromptError, match="no tokenizer"):
        read_spec_bench(questions(tmp_path / "q.jsonl", ("qa", "x")), tiny.load("llama"), 16)
    with pytest.raises(sv.PromptError, match="fill the model's context"):
        read_spec_bench(questions(tmp_path / "q.jsonl", ("qa", "x")), embedded, embedded.context_length)


def test_the_table_is_of_the_runs() -> None:
    prompts = [Prompt("translation", (1, 2, 3)), Prompt("translation", (4, 5)), Prompt("question answering", (9, 8))]
    options = BenchOptions(contenders=("plain", "self-draft"), new_tokens=10, repeats=3)
    report = run_bench(tiny.load("llama"), prompts, sv.Settings(sv.NoAnnealing(), 0.05), options)
    table = task_table(report).set_index("task")
    assert list(table.index) == ["translation", "question answering", "overall"]
    assert table["prompts"].tolist() == [2, 1, 3]
    assert (table["equal"] == table["runs"]).all()
    ratios = paired_ratios(report.runs, "self-draft", "plain")
    assert table.loc["overall", "low"] == pytest.approx(ratios.quantile(0.25))
    sums = report.runs.groupby(["repeat", "contender"])["seconds"].sum().unstack()
    assert table.loc["overall", "speedup"] == pytest.approx((sums["plain"] / sums["self-draft"]).median())
    alone = report.summary().set_index(["kind", "contender"]).loc[("translation", "self-draft")]
    assert table.loc["translation", "tokens_per_round"] == alone["tokens_per_round"]
    assert len(TASKS) == 6
