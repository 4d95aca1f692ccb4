"""Tables of what settings would do to recorded texts: for figures, sliders and searches. Speedups are predicted. No
torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from selfdraft_viz.errors import SettingsError
from selfdraft_viz.lab.costs import Costs
from selfdraft_viz.lab.record import LOWEST, DenseRecord
from selfdraft_viz.lab.replay import replay_kinds, replay_tokens
from selfdraft_viz.lab.rounds import COUNTS
from selfdraft_viz.schedules import LinearAnnealing
from selfdraft_viz.settings import Settings


def replay_table(records: Mapping[str, DenseRecord], costs: Costs, settings: Sequence[Settings]) -> pd.DataFrame:
    """One row a setting and kind of text: `setting` (its place in `settings`), `kind`, `predicted` (speedup over
    ordinary decoding), `seconds_per_token`, `acceptance_rate`, `tokens_per_round`, `mean_exit_depth`,
    `layer_passes_per_token`, `rounds`, `drafted`, `accepted`, `new_tokens`.

    Args:
        records: by kind; all of the model that `costs` were measured for.
        costs: prices.
        settings: any number.

    Raises:
        SettingsError: settings do not fit the records, or there are no records.
    """
    if not records:
        raise SettingsError("no records: give at least one, by kind")
    counts = replay_kinds(records, settings)
    table = table_of(counts.reshape(-1, counts.shape[-1]), costs)
    table.insert(0, "kind", np.repeat(list(records), len(settings)))
    table.insert(0, "setting", np.tile(np.arange(len(settings)), len(records)))
    return table


def table_of(counts: NDArray[np.int64], costs: Costs) -> pd.DataFrame:
    """(settings, COUNTS) as the figures of `replay_table`, one row a setting."""
    count = dict(zip(COUNTS, counts.T, strict=True))
    drafted, rounds, new = (np.maximum(1, count[name]) for name in ("drafted", "rounds", "new_tokens"))
    return pd.DataFrame(
        {
            "predicted": costs.speedup(counts),
            "seconds_per_token": costs.seconds_per_token(counts),
            "acceptance_rate": np.where(count["drafted"] > 0, count["accepted"] / drafted, np.nan),
            "tokens_per_round": count["new_tokens"] / rounds,
            "mean_exit_depth": np.where(count["drafted"] > 0, count["draft_depths"] / drafted, np.nan),
            "layer_passes_per_token": (count["draft_layer_passes"] + count["verification_layer_passes"]) / new,
            **{name: count[name] for name in ("rounds", "drafted", "accepted", "new_tokens")},
        }
    )


def over_kinds(table: pd.DataFrame) -> pd.DataFrame:
    """`replay_table` with one row a setting: geometric mean of `predicted`, plain means of the other figures."""
    figures = ["acceptance_rate", "tokens_per_round", "mean_exit_depth", "layer_passes_per_token"]
    grouped = table.assign(predicted=np.log(table["predicted"])).groupby("setting")
    means = grouped[["predicted", *figures]].mean()
    return means.assign(predicted=np.exp(means["predicted"])).reset_index()


def alpha_threshold_grid(
    records: Mapping[str, DenseRecord],
    costs: Costs,
    base: Settings,
    alphas: Sequence[float] | None = None,
    thresholds: Sequence[float] | None = None,
) -> pd.DataFrame:
    """Every pair of linear annealing strength and threshold, all else as in `base`: `alpha`, `threshold` and what
    `over_kinds` gives.

    Args:
        records, costs: as for `replay_table`.
        base: the other settings.
        alphas: None = -0.5 to 1.5 in steps of 0.1; -0.5 to 3 is recorded whatever the exit layers.
        thresholds: None = 0.05 to 0.95 in steps of 0.05.
    """
    strengths = np.round(np.arange(-0.5, 1.51, 0.1), 2) if alphas is None else np.asarray(alphas, dtype=float)
    levels = np.round(np.arange(0.05, 0.96, 0.05), 2) if thresholds is None else np.asarray(thresholds, dtype=float)
    pairs = [(float(alpha), float(threshold)) for alpha in strengths for threshold in levels]
    settings = [base.replace(schedule=LinearAnnealing(alpha), threshold=threshold) for alpha, threshold in pairs]
    table = over_kinds(replay_table(records, costs, settings))
    return table.assign(alpha=[alpha for alpha, _ in pairs], threshold=[threshold for _, threshold in pairs])


def sensitivity(records: Mapping[str, DenseRecord], costs: Costs, base: Settings) -> pd.DataFrame:
    """Each setting moved by itself, the others as in `base`: `setting` (threshold, alpha, max_width, exit_layers),
    `value`, `label`, `is_base`, and what `over_kinds` gives. `alpha` puts a linear schedule in place of `base`'s."""
    record = next(iter(records.values()))
    moved: list[tuple[str, float, str, Settings]] = []
    for threshold in np.round(np.arange(0.05, 1.0, 0.05), 2).tolist():
        moved.append(("threshold", threshold, f"{threshold:g}", base.replace(threshold=threshold)))
    for alpha in np.round(np.arange(-0.5, 1.51, 0.1), 2).tolist():
        moved.append(("alpha", alpha, f"{alpha:g}", base.replace(schedule=LinearAnnealing(alpha))))
    for width in range(1, 17):
        moved.append(("max_width", width, f"{width}", base.replace(max_width=width)))
    used = base.plan(record.exit_layers, record.num_layers).exit_temperatures
    for layer in record.exit_layers:
        layers = tuple(other for other in used if other != layer) if layer in used else tuple(sorted({*used, layer}))
        if not layers:
            continue  # there is nothing to draft with without the only exit
        label = f"without {layer}" if layer in used else f"with {layer}"
        one = base.replace(exit_layers=layers, max_depth=None)
        moved.append(("exit_layers", float(layer), label, one))
    settings = [base, *(one for *_, one in moved)]
    table = over_kinds(replay_table(records, costs, settings))
    rows = table.iloc[1:].reset_index(drop=True)
    names = pd.DataFrame([row[:3] for row in moved], columns=["setting", "value", "label"])
    same = [one == base for *_, one in moved]
    return pd.concat([names.assign(is_base=same), rows.drop(columns="setting")], axis=1)


def pareto_front(table: pd.DataFrame, x: str = "acceptance_rate", y: str = "tokens_per_round") -> pd.Series:
    """(rows,) whether no other row is at least as good in both columns and better in one; more is better in both."""
    points = table[[x, y]].to_numpy(dtype=float)
    order = np.lexsort((-points[:, 1], -points[:, 0]))  # best x first, among equals best y first
    best, front = -np.inf, np.zeros(len(points), dtype=bool)
    for index in order:
        if points[index, 1] > best:
            front[index], best = True, points[index, 1]
    return pd.Series(front, index=table.index)


def token_changes(record: DenseRecord, text: int, before: Settings | pd.DataFrame, after: Settings) -> pd.DataFrame:
    """What would change, token by token, were `after` in force instead of `before`: `position`, `token_id`,
    `kind_before`, `kind_after`, `exit_depth_before`, `exit_depth_after`, `round_before`, `round_after`, and `change`:
    "earlier" (drafted now, or from a shallower exit), "later", or "" where nothing changes. The tokens never do.
    `before` may be what `replay_tokens` gave for them."""
    one = replay_tokens(record, before, text) if isinstance(before, Settings) else before
    other = replay_tokens(record, after, text)
    difference = other["exit_depth"].to_numpy() - one["exit_depth"].to_numpy()  # of the same tokens, in their order
    columns: dict[str, Any] = {name: one[name] for name in ("position", "token_id")}
    for name in ("kind", "round", "exit_depth"):
        columns |= {f"{name}_before": one[name], f"{name}_after": other[name]}
    return pd.DataFrame({**columns, "change": np.select([difference < 0, difference > 0], ["earlier", "later"], "")})


def widest_alpha(exit_layers: Sequence[int], num_layers: int) -> float:
    """The largest linear annealing strength whose temperatures a record of these exits holds."""
    hottest = 1 - min(exit_layers) / num_layers
    return (1 / LOWEST - 1) / hottest


def settings_row(settings: Settings) -> dict[str, Any]:
    """A setting in words, for tables."""
    schedule: Any = settings.schedule
    return {
        "schedule": schedule.kind + (f" {schedule.alpha:+.2f}" if hasattr(schedule, "alpha") else ""),
        "threshold": settings.threshold,
        "max_width": settings.max_width,
        "exit_layers": settings.exit_layers,
        "policy": settings.policy.kind,
    }
