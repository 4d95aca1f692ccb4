"""What the parts of decoding cost on one machine, and what a replay would then take. Predicting needs no torch.

A decode tells when each of its parts was done, so every interval between two of its events is the price of a known
amount of work: a run of layers over n rows, an exit check, the LM head, the bookkeeping of a round. `measure_costs`
decodes a few prompts under settings that vary these amounts, and fits one price a part. The same work costs more where
other work has pushed its weights out of the caches, so the first row of a round has prices of its own. Telling costs
time too: all prices are scaled to what the same decodes take when they tell their tokens only. What a replay counted,
times the prices, is the *predicted* time; a speedup is only called measured when it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from selfdraft_viz.errors import LoadError, SettingsError
from selfdraft_viz.lab.replay import Replay
from selfdraft_viz.lab.rounds import COUNTS
from selfdraft_viz.saved import read_json, reading

if TYPE_CHECKING:
    from selfdraft_viz.model import Model

PARTS = {
    "layer": "a layer pass over one row",
    "second_row": "a second row in a layer pass, over the price of one",
    "further_row": "each further row in it",
    "run": "fixed, for each run of consecutive layers but a row's first",
    "exit_check": "an exit head on one row, and reading its decision back",
    "first_check": "the first check of a round, over the price of a later one: the verification before it pushed the "
    "exit head out of the caches",
    "head": "final norm and LM head on one row",
    "head_row": "each further row of these",
    "draft": "fixed, for each row drafted from: embedding, bookkeeping, its first run of layers",
    "round": "fixed, for each round: verdict, commits, cutting the caches back, shallow layers that are not in the "
    "caches any more",
}
"""The parts that have a price in seconds."""
_FORMAT = "selfdraft_viz costs"


@dataclass(frozen=True)
class Costs:
    """Prices in seconds, on one machine.

    Attributes:
        fits: (repeats, PARTS) prices, fitted to each repeat of the measurement by itself.
        plain: (repeats,) measured seconds per token of ordinary decoding, in the same repeats.
        num_layers: L.
        hardware: what they hold for: processor or accelerator, threads, versions, model, heads, dtype.
    """

    fits: NDArray[np.float64]
    plain: NDArray[np.float64]
    num_layers: int
    hardware: dict[str, Any]

    def __post_init__(self) -> None:
        if self.fits.shape != (len(self.plain), len(PARTS)) or not len(self.plain):
            raise SettingsError(f"fits of shape {self.fits.shape} for {len(self.plain)} repeats: use (repeats, parts)")

    @property
    def seconds(self) -> dict[str, float]:
        """The price of each part: the mean over repeats."""
        return dict(zip(PARTS, self.fits.mean(axis=0).tolist(), strict=True))

    @property
    def standard_errors(self) -> dict[str, float]:
        """Of `seconds`, from the scatter between repeats; NaN where there was one repeat."""
        return dict(zip(PARTS, _standard_error(self.fits).tolist(), strict=True))

    @property
    def name(self) -> str:
        """The hardware, in words."""
        where = self.hardware.get("accelerator") or f"{self.hardware.get('processor', 'unknown processor')}"
        threads = self.hardware.get("threads")
        return where if self.hardware.get("accelerator") or not threads else f"{where}, threads: {threads}"

    def seconds_per_token(self, counts: ArrayLike | Replay) -> NDArray[np.float64]:
        """(...) predicted seconds per token of self-draft decoding for (..., COUNTS) of a replay."""
        usage, tokens = _usage(counts, self.num_layers)
        return usage @ self.fits.mean(axis=0) / tokens

    def speedup(self, counts: ArrayLike | Replay) -> NDArray[np.float64]:
        """(...) predicted speedup over ordinary decoding for (..., COUNTS) of a replay."""
        return self.plain.mean() / self.seconds_per_token(counts)

    def speedup_interval(self, counts: ArrayLike | Replay, deviations: float = 2.0) -> tuple[NDArray, NDArray]:
        """Lower and upper end of what the prices' uncertainty leaves open: the speedup under each repeat's prices,
        their mean, and `deviations` standard errors to either side. The replay's own uncertainty is not in it."""
        table = np.asarray(counts.counts if isinstance(counts, Replay) else counts)
        speedups = self.each_speedup(np.broadcast_to(table, (len(self.plain), *table.shape)))
        middle, spread = speedups.mean(axis=0), deviations * _standard_error(speedups)
        return middle - spread, middle + spread

    def each_speedup(self, counts: ArrayLike) -> NDArray[np.float64]:
        """(repeats, ...) speedups for (repeats, ..., COUNTS), each by the prices of its own repeat."""
        usage, tokens = _usage(counts, self.num_layers)
        seconds = np.stack([amounts @ fit for amounts, fit in zip(usage, self.fits, strict=True)]) / tokens
        return self.plain.reshape(-1, *[1] * (seconds.ndim - 1)) / seconds

    def row_price(self, counts: Replay) -> float:
        """Predicted seconds of drafting one row more: its layers up to an exit and its checks, as on the average row of
        a replay, and its place in the verification that follows."""
        price, rows = self.seconds, max(1, counts.verified_rows)
        depth, checks = counts.draft_layer_passes / rows, counts.exit_checks / rows
        drafting = depth * price["layer"] + checks * price["exit_check"] + price["draft"]
        drafting += max(0.0, checks - 1) * price["run"]
        return drafting + (self.num_layers - depth) * price["further_row"] + price["head_row"]

    def save(self, path: str | Path) -> Path:
        """Write a small JSON file. Returns the path."""
        data = {
            "format": _FORMAT,
            "parts": list(PARTS),
            "fits": self.fits.tolist(),
            "plain": self.plain.tolist(),
            "num_layers": self.num_layers,
            "hardware": self.hardware,
        }
        Path(path).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Costs:
        """Read what `save` wrote.

        Raises:
            LoadError: the file is missing, damaged, or holds no costs.
        """
        with reading(path, "file of costs", "costs.save()"):
            data = read_json(path, "costs", _FORMAT)
            if data["parts"] != list(PARTS):
                raise LoadError(f"{path} holds no costs that this version of selfdraft_viz reads: measure them again")
            return cls(np.array(data["fits"]), np.array(data["plain"]), data["num_layers"], data["hardware"])


def _standard_error(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(values) < 2:
        return np.full(values.shape[1:], math.nan)
    return values.std(axis=0, ddof=1) / math.sqrt(len(values))


def _usage(counts: ArrayLike | Replay, num_layers: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(..., PARTS) how often each part is paid for, and (...) new tokens, at least 1."""
    table = np.asarray(counts.counts if isinstance(counts, Replay) else counts, dtype=np.float64)
    count = dict(zip(COUNTS, np.moveaxis(table, -1, 0), strict=True))
    passes = count["draft_layer_passes"] + count["verification_layer_passes"]
    several = passes - count["single_row_passes"]
    rows_in_several = count["verified_rows"] * num_layers - count["single_row_passes"]
    usage = {
        "layer": passes,
        "second_row": several,
        "further_row": rows_in_several - 2 * several,
        "run": count["exit_checks"] - count["verified_rows"] + count["verification_runs"],
        "exit_check": count["exit_checks"],
        "first_check": count["rounds"],
        "head": count["rounds"],
        "head_row": count["verified_rows"] - count["rounds"],
        "draft": count["verified_rows"],
        "round": count["rounds"],
    }
    return np.stack([usage[part] for part in PARTS], axis=-1), np.maximum(count["new_tokens"], 1)


def measure_costs(
    model: Model,
    prompts: Sequence[str | Sequence[int]] | None = None,
    *,
    new_tokens: int = 48,
    repeats: int = 5,
) -> Costs:
    """Decode `prompts` under settings that vary the work, time every part of it, and fit the prices.

    Prices rise with the length of the text (attention reads more keys): use prompts and `new_tokens` like those that
    will be predicted. Nothing else should run on the machine meanwhile.

    Args:
        model: with its exit heads; on the device that the prices are for.
        prompts: None = two of those that come with the package, or token ids for a model without a tokenizer.
        new_tokens: of each decode, at least 8.
        repeats: how often all of it is done and fitted, after one untimed round; at least 1.

    Raises:
        SettingsError: `new_tokens` or `repeats` is too small.
    """
    from selfdraft_viz.lab import measuring

    if new_tokens < 8 or repeats < 1:
        raise SettingsError(f"new_tokens={new_tokens}, repeats={repeats}: use at least 8 tokens and 1 repeat")
    return measuring.measure(model, prompts, new_tokens, repeats)
