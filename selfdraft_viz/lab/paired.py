"""Predictions held against real decodes: each beside ordinary decoding of the same prompt, in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from selfdraft_viz.errors import SettingsError
from selfdraft_viz.events import Committed, Event, Verified
from selfdraft_viz.lab.costs import Costs
from selfdraft_viz.lab.record import DenseRecord
from selfdraft_viz.lab.replay import replay_many
from selfdraft_viz.lab.rounds import COUNTS
from selfdraft_viz.settings import Settings

if TYPE_CHECKING:
    from selfdraft_viz.model import Model

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (decodes done, decodes in all)."""
_BETWEEN_PLAIN = 3  # self-draft decodes between two ordinary ones


def measure_paired(
    model: Model,
    record: DenseRecord,
    settings: Mapping[str, Settings],
    *,
    repeats: int = 3,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Decode the prompts of `record` for real under each of `settings`, with ordinary decoding in between.

    Args:
        model: that the record was made with; on the machine to be measured.
        record: its texts' first `start` tokens are the prompts; as many tokens are made as it has rows after them.
        settings: by name.
        repeats: timed rounds over all texts after one untimed decode each; the order turns from text to text.
        progress: called after every decode.

    Returns:
        One row a setting, text and repeat: `name`, `text`, `repeat`; `seconds` and `plain_seconds`, per token after
        the prefill, the latter the mean of the ordinary decodes before and after; `rounds`, `drafted`, `accepted`,
        `new_tokens` (after the first); `equal`: whether the tokens are those of ordinary decoding.

    Raises:
        SettingsError: settings do not fit, or there are none, or no repeats. PromptError: the record has no prompts.
    """
    if not settings or repeats < 1:
        raise SettingsError(f"{len(settings)} settings, repeats={repeats}: give at least one setting and one repeat")
    for one in settings.values():
        one.plan(model.exit_layers, model.num_layers)
    prompts = record.token_ids[:, : record.start].tolist()
    new_tokens = record.token_ids.shape[1] - record.start + 1
    options: dict[str, Any] = {"max_new_tokens": new_tokens, "stop_at_end": False, "detail": "tokens"}
    model.stream_plain(prompts[0], **options)  # refuses an empty prompt, or one too long, before work is done
    names = list(settings)
    groups = -(-len(names) // _BETWEEN_PLAIN)
    total, done, rows = repeats * len(prompts) * (len(names) + groups + 1), 0, []
    for name in names:  # warm-up
        _decoded(model.stream(prompts[0], settings[name], **{**options, "max_new_tokens": min(16, new_tokens)}))
    _decoded(model.stream_plain(prompts[0], **options))
    for repeat in range(repeats):
        for text, prompt in enumerate(prompts):
            turn = (repeat + text) % len(names)
            order = names[turn:] + names[:turn]
            before = _decoded(model.stream_plain(prompt, **options))
            done += 1
            for first in range(0, len(order), _BETWEEN_PLAIN):
                group = order[first : first + _BETWEEN_PLAIN]
                made = {name: _decoded(model.stream(prompt, settings[name], **options)) for name in group}
                after = _decoded(model.stream_plain(prompt, **options))
                plain = (before["seconds"] + after["seconds"]) / 2
                for name, decode in made.items():
                    equal = decode.pop("token_ids") == before["token_ids"]
                    rows.append(
                        {"name": name, "text": text, "repeat": repeat, **decode, "plain_seconds": plain, "equal": equal}
                    )
                before = after
                done += len(group) + 1
                if progress is not None:
                    progress(done, total)
    return pd.DataFrame(rows)


def measured_speedups(runs: pd.DataFrame, texts: Iterable[int] | None = None) -> pd.DataFrame:
    """Speedups of `measure_paired`'s runs, one row a name in the order of the runs.

    Columns: `measured` (over all texts together, of each text its median repeat, so that a delay of one decode does
    not count), `measured_low` and `measured_high` (the least and the most of the repeats), `acceptance_rate`,
    `tokens_per_round`, `equal` (all of its decodes were).
    """
    if texts is not None:
        runs = runs[runs["text"].isin(list(texts))]
    rows = []
    for name, own in runs.groupby("name", sort=False):
        sums = own.groupby("repeat")[["plain_seconds", "seconds"]].sum()
        ratios = sums["plain_seconds"] / sums["seconds"]
        typical = own.groupby("text")[["plain_seconds", "seconds"]].median().sum()
        measured = float(typical["plain_seconds"] / typical["seconds"])
        once = own[own["repeat"] == own["repeat"].min()]
        rows.append(
            {
                "name": name,
                "measured": measured,
                "measured_low": min(measured, float(ratios.min())),
                "measured_high": max(measured, float(ratios.max())),
                "acceptance_rate": once["accepted"].sum() / max(1, once["drafted"].sum()),
                "tokens_per_round": once["new_tokens"].sum() / max(1, once["rounds"].sum()),
                "equal": bool(own["equal"].all()),
            }
        )
    return pd.DataFrame(rows)


def predicted_speedups(record: DenseRecord, costs: Costs, settings: Mapping[str, Settings]) -> pd.DataFrame:
    """Replayed and priced, one row a setting: `name`, `predicted`, `predicted_low`, `predicted_high` (what the prices'
    uncertainty leaves open, two standard errors), `predicted_tokens_per_round`, `predicted_acceptance_rate`,
    `layer_passes_per_token`."""
    counts = replay_many(record, list(settings.values())).sum(axis=1)
    count = dict(zip(COUNTS, counts.T, strict=True))
    low, high = costs.speedup_interval(counts)
    passes = count["draft_layer_passes"] + count["verification_layer_passes"]
    return pd.DataFrame(
        {
            "name": list(settings),
            "predicted": costs.speedup(counts),
            "predicted_low": low,
            "predicted_high": high,
            "predicted_tokens_per_round": count["new_tokens"] / np.maximum(1, count["rounds"]),
            "predicted_acceptance_rate": count["accepted"] / np.maximum(1, count["drafted"]),
            "layer_passes_per_token": passes / np.maximum(1, count["new_tokens"]),
        }
    )


def compare_predictions(record: DenseRecord, costs: Costs, settings: Mapping[str, Settings], runs: pd.DataFrame):
    """`predicted_speedups` beside `measured_speedups` of the same texts, and `error` = predicted / measured - 1."""
    both = predicted_speedups(record, costs, settings).merge(measured_speedups(runs), on="name")
    return both.assign(error=both["predicted"] / both["measured"] - 1)


def error_distribution(errors: Sequence[float] | pd.Series) -> dict[str, float]:
    """Of relative errors: `median`, `90 %` and `largest` of their sizes, and `bias`, the median with its sign."""
    values = np.asarray(errors, dtype=np.float64)
    sizes = np.abs(values)
    return {
        "median": float(np.median(sizes)),
        "90 %": float(np.quantile(sizes, 0.9)),
        "largest": float(sizes.max()),
        "bias": float(np.median(values)),
    }


def varied_settings(exit_layers: Sequence[int], count: int = 24, seed: int = 0) -> dict[str, Settings]:
    """`count` settings drawn over all that can be set, for holding predictions against real runs."""
    from selfdraft_viz.schedules import LinearAnnealing

    rng = np.random.default_rng(seed)
    made: dict[str, Settings] = {}
    while len(made) < count:
        layers = sorted(rng.choice(exit_layers, size=rng.integers(1, min(3, len(exit_layers)) + 1), replace=False))
        settings = Settings(
            LinearAnnealing(round(float(rng.uniform(-0.5, 1.5)), 2)),
            round(float(rng.uniform(0.1, 0.95)), 2),
            max_width=int(rng.integers(1, 13)),
            exit_layers=tuple(int(layer) for layer in layers),
        )
        made[f"{len(made) + 1}"] = settings
    return made


def _decoded(events: Iterable[Event]) -> dict[str, Any]:
    token_ids, seconds, rounds, drafted, accepted = [], [], 0, 0, 0
    for event in events:
        if isinstance(event, Committed):
            token_ids.append(event.token_id)
            seconds.append(event.seconds)
        elif isinstance(event, Verified):
            rounds += 1
            drafted += len(event.draft_ids)
            accepted += event.accepted
    new = len(token_ids) - 1
    return {
        "seconds": (seconds[-1] - seconds[0]) / max(1, new),
        "rounds": rounds,
        "drafted": drafted,
        "accepted": accepted,
        "new_tokens": new,
        "token_ids": token_ids,
    }
