"""Spec-Bench (Xia et al., Findings of ACL 2024): its tasks, its prompts cut to a model, its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from selfdraft_viz.errors import PromptError
from selfdraft_viz.lab.bench_report import BenchReport, paired_ratios
from selfdraft_viz.lab.texts import Prompt, read_prompts

if TYPE_CHECKING:
    from selfdraft_viz.model import Model

TASKS = {
    "multi-turn conversation": (
        "writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities",
    ),
    "translation": ("translation",),
    "summarization": ("summarization",),
    "question answering": ("qa",),
    "mathematical reasoning": ("math_reasoning",),
    "retrieval-augmented generation": ("rag",),
}  # fmt: skip
"""Task -> categories of the file."""

PAPER = (
    ("Vicuna-7B, SpecBound", 2.15),
    ("Vicuna-13B, SpecBound", 2.16),
    ("CodeLlama-7B, SpecBound", 1.93),
    ("CodeLlama-13B, SpecBound", 2.33),
    ("Vicuna-7B, Medusa", 1.71),
    ("Vicuna-7B, Kangaroo", 1.50),
    ("Vicuna-7B, REST", 1.47),
    ("Vicuna-7B, Lookahead", 1.35),
)
"""Overall speedups over ordinary decoding, greedy, batch 1, as printed in SpecBound (arXiv 2604.12247)."""
PAPER_NOTE = "the paper also prints up to 2.94x on translation, and 3.5 to 4.1 tokens per verification"


@dataclass(frozen=True)
class TaskPrompts:
    """Prompts whose kind is the task.

    Attributes:
        prompts: as token ids, or as text where nothing had to be cut.
        cut: how many were too long and lost their beginning.
    """

    prompts: tuple[Prompt, ...]
    cut: int


def read_spec_bench(path: str | Path, model: Model, new_tokens: int, per_task: int | None = None) -> TaskPrompts:
    """The first turns of a file of Spec-Bench's form, as prompts for `model`.

    A tokenizer with a chat template wraps each in it, as one message of the user. Where prompt and new tokens do not
    fit into the model's context, the prompt loses its beginning; the report says how many did.

    Args:
        path: JSON lines with `category` and `turns`.
        model: whose tokenizer and context they are for.
        new_tokens: that will be made of each.
        per_task: the first so many of each task; None = all.

    Raises:
        LoadError: the file is missing, or of another form.
        PromptError: none of its categories is one of Spec-Bench's, or there is no room for a prompt.
    """
    task_of = {category: task for task, categories in TASKS.items() for category in categories}
    room = model.context_length - new_tokens
    if room < 1:
        raise PromptError(f"{new_tokens} new tokens fill the model's context of {model.context_length}: make fewer")
    if per_task is not None and per_task < 1:
        raise PromptError(f"{per_task} prompts a task: use at least 1")
    read = read_prompts(path)
    by_task: dict[str, list[Prompt]] = {task: [] for task in TASKS}
    for prompt in read:
        task = task_of.get(prompt.kind)
        if task is not None and (per_task is None or len(by_task[task]) < per_task):
            by_task[task].append(replace(prompt, kind=task))
    chosen, cut = [], 0
    for prompt in (prompt for prompts in by_task.values() for prompt in prompts):
        ids = _encoded(model, str(prompt.text))
        cut += len(ids) > room
        chosen.append(replace(prompt, text=ids[-room:]))
    if not chosen:
        found = ", ".join(dict.fromkeys(prompt.kind for prompt in read))
        raise PromptError(f"{path} has prompts of {found}: Spec-Bench's categories are {', '.join(task_of)}")
    return TaskPrompts(tuple(chosen), cut)


def _encoded(model: Model, text: str) -> tuple[int, ...]:
    tokenizer: Any = model.tokenizer
    if tokenizer is None:
        raise PromptError("Spec-Bench prompts are text, but this model has no tokenizer: load() one with tokenizer=")
    if getattr(tokenizer, "chat_template", None):
        made = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=True, return_dict=True
        )
        return tuple(int(token) for token in made["input_ids"])
    return model.encode(text)


def task_table(report: BenchReport) -> pd.DataFrame:
    """One row a task and "overall": `task`, `prompts`, `tokens_per_round`, `acceptance_rate`, `speedup` over ordinary
    decoding: all seconds of the one over all seconds of the other, in the repeat that is the median; `low` and `high`,
    quartiles of the paired ratios of prompts; `equal`, decodes that gave the tokens of ordinary decoding, of `runs`.

    Args:
        report: of a bench whose kinds are tasks and whose contenders include "plain" and "self-draft".
    """
    summary = report.summary().set_index(["kind", "contender"])
    kinds = list(dict.fromkeys(report.runs["kind"]))
    rows = []
    for task in [*kinds, "overall"]:
        runs = report.runs if task == "overall" else report.runs[report.runs["kind"] == task]
        whole = "all" if len(kinds) > 1 else kinds[0]
        figures: Any = summary.loc[(whole if task == "overall" else task, "self-draft")]
        seconds = runs.pivot_table(index="repeat", columns="contender", values="seconds", aggfunc="sum")
        ratios = paired_ratios(runs, "self-draft", "plain")
        rows.append(
            {
                "task": task,
                "prompts": int(runs["prompt"].nunique()),
                "tokens_per_round": figures["tokens_per_round"],
                "acceptance_rate": figures["acceptance_rate"],
                "speedup": float((seconds["plain"] / seconds["self-draft"]).median()),
                "low": float(ratios.quantile(0.25)),
                "high": float(ratios.quantile(0.75)),
                "equal": int(figures["equal"]),
                "runs": int(figures["runs"]),
            }
        )
    return pd.DataFrame(rows)


def paper_rows() -> Sequence[tuple[str, str]]:
    """The paper's overall speedups, in words."""
    return [(name, f"{speedup:.2f}x") for name, speedup in PAPER]
