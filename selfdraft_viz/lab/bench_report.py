"""What a speed bench measured, and its statistics. No torch here."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

_FORMAT_VERSION = 1


@dataclass(frozen=True)
class BenchReport:
    """What a bench measured.

    Attributes:
        runs: one row a timed call: `kind`, `prompt` (index into `prompts`), `repeat`, `contender` (key), `place` (in
            the order of that turn, from 0), `seconds` (wall clock of the whole call), `first_difference` (index of
            the first new token that differs from the reference's; empty = equal).
        decodes: one row a prompt and contender that says how its decode went: `Trace.summary()` of the first repeat.
        outputs: by contender, for each prompt the new token ids of the first repeat.
        prompts: plain data, with `prompt_tokens` and `repetition` (share of repeated 4-grams in the reference's new
        tokens). contenders: by key its `title` and how it was run.
        left_out: by key why it could not run.
        reference: key of the contender that outputs are compared with.
        model, environment, options: as plain data.
        floor: `selfdraft_viz.lab.floor.Floor.to_dict()`, where it was measured.
    """

    runs: pd.DataFrame
    decodes: pd.DataFrame
    outputs: dict[str, list[list[int]]]
    prompts: list[dict[str, Any]]
    contenders: dict[str, dict[str, Any]]
    left_out: dict[str, str]
    reference: str
    model: dict[str, Any]
    environment: dict[str, Any]
    options: dict[str, Any]
    floor: dict[str, Any] | None = None

    def summary(self) -> pd.DataFrame:
        """One row a kind ("all" last, where there are several) and contender.

        Columns: `kind`, `contender`, `prompts`, `repetition`; `seconds_per_token` (median over prompts and repeats,
        prefill included); `speed_to_transformers` and `speed_to_plain`, paired ratios of seconds, above 1 = faster
        than that one (median, and `..._low`, `..._high`: the quartiles); `equal` and `runs` (how many runs gave the
        reference's tokens); `first_difference` (the earliest index, empty = none); `acceptance_rate`,
        `tokens_per_round`, `mean_exit_depth`, `layer_passes_per_token`, `exit_checks_per_token` over all its prompts
        (empty for transformers).
        """
        kinds = list(dict.fromkeys(self.runs["kind"]))
        groups = [(kind, self.runs["kind"] == kind) for kind in kinds]
        if len(kinds) > 1:
            groups.append(("all", pd.Series(True, index=self.runs.index)))
        rows = []
        for kind, chosen in groups:
            runs = self.runs[chosen]
            for key in self.contenders:
                rows.append({"kind": kind, "contender": key, **self._row(runs, key)})
        return pd.DataFrame(rows)

    def _row(self, runs: pd.DataFrame, key: str) -> dict[str, Any]:
        own = runs[runs["contender"] == key]
        prompts = sorted(set(own["prompt"]))
        row: dict[str, Any] = {
            "prompts": len(prompts),
            "repetition": _mean([self.prompts[prompt]["repetition"] for prompt in prompts]),
            "seconds_per_token": float(own["seconds"].median()) / self.options["new_tokens"],
        }
        for other in ("transformers", "plain"):
            name = f"speed_to_{other}"
            ratios = paired_ratios(runs, key, other)
            quartiles = ratios.quantile([0.5, 0.25, 0.75]) if len(ratios) else [math.nan] * 3
            row |= dict(zip([name, f"{name}_low", f"{name}_high"], map(float, quartiles), strict=True))
        differences = own["first_difference"].dropna()
        row |= {
            "equal": len(own) - len(differences),
            "runs": len(own),
            "first_difference": int(differences.min()) if len(differences) else None,
        }
        return row | _pooled(self.decodes[(self.decodes["contender"] == key) & self.decodes["prompt"].isin(prompts)])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, the summary included."""
        return {
            "format_version": _FORMAT_VERSION,
            "what": "wall-clock seconds of whole calls, prefill included; greedy; end-of-sequence tokens end nothing",
            "model": self.model,
            "environment": self.environment,
            "options": self.options,
            "floor": self.floor,
            "contenders": self.contenders,
            "left_out": self.left_out,
            "reference": self.reference,
            "summary": _plain_rows(self.summary()),
            "prompts": self.prompts,
            "runs": _plain_rows(self.runs),
            "decodes": _plain_rows(self.decodes),
            "outputs": self.outputs,
        }

    def save(self, path: str | Path) -> Path:
        """Write a JSON file. Returns the path."""
        path = Path(path)
        path.write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return path


def first_difference(token_ids: Sequence[int], reference: Sequence[int]) -> int | None:
    """Index of the first token that differs; None if none does."""
    for index, (ours, theirs) in enumerate(zip(token_ids, reference, strict=False)):
        if ours != theirs:
            return index
    return None if len(token_ids) == len(reference) else min(len(token_ids), len(reference))


def repeated_share(token_ids: Sequence[int], n: int = 4) -> float:
    """Share of the n-grams of `token_ids` that have occurred before in it, 0..1; 0 where there are none."""
    grams = [tuple(token_ids[i : i + n]) for i in range(len(token_ids) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def paired_ratios(runs: pd.DataFrame, contender: str, other: str) -> pd.Series:
    """Seconds of `other` / seconds of `contender` for each prompt and repeat: above 1 = `contender` is faster."""
    wide = runs.pivot(index=["prompt", "repeat"], columns="contender", values="seconds")
    if contender not in wide or other not in wide:
        return pd.Series(dtype="float64")
    return (wide[other] / wide[contender]).dropna()


def _pooled(decodes: pd.DataFrame) -> dict[str, float]:
    """Figures of several decodes as of one: rates weighted by what they are rates of."""
    weights = {
        "acceptance_rate": "drafted",
        "tokens_per_round": "rounds",
        "mean_exit_depth": "drafted",
        "layer_passes_per_token": "new_tokens",
        "exit_checks_per_token": "new_tokens",
    }
    pooled = {}
    for name, weight in weights.items():
        values = pd.to_numeric(decodes[name]) if name in decodes else pd.Series(dtype="float64")
        known = values.dropna()
        total = decodes.loc[known.index, weight].sum() if len(known) else 0
        pooled[name] = float((known * decodes.loc[known.index, weight]).sum() / total) if total else math.nan
    return pooled


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON data, None where a value is missing."""
    return json.loads(table.to_json(orient="records", double_precision=12))
