"""Searching settings by their predicted speed, and judging what was found on texts that the search has not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import optuna
import pandas as pd

from selfdraft_viz.errors import SettingsError
from selfdraft_viz.lab.costs import Costs
from selfdraft_viz.lab.policies import cost_aware
from selfdraft_viz.lab.record import HIGHEST, LOWEST, DenseRecord
from selfdraft_viz.lab.replay import replay_kinds, replay_many
from selfdraft_viz.policies import PaperBounds, Policy, ProductOfConfidences
from selfdraft_viz.schedules import LinearAnnealing, NoAnnealing, PerLayerTemperature, Schedule
from selfdraft_viz.settings import Settings

_THRESHOLDS, _WIDTHS, _LEAST = (0.05, 0.99), (1, 16), (0.01, 0.95)


@dataclass(frozen=True)
class Space:
    """What a search may choose from.

    Attributes:
        exit_layers: the model's exits; at most `most_exits` of them are used at once. The deepest in use is the depth
            bound: no layer above it runs while drafting.
        schedule: "none", "linear", or "per layer" (a temperature of its own for each exit).
        alphas: the range of a linear schedule's strength; the paper's is 0 and above.
        temperatures: the range for "per layer".
        depth_bound: False = the deepest exit is always in use.
        width_bound: False = rounds as wide as they go.
        policy: "paper", "product" or "cost-aware".
        most_exits: at least 1.
    """

    exit_layers: tuple[int, ...]
    schedule: Literal["none", "linear", "per layer"] = "linear"
    alphas: tuple[float, float] = (-0.5, 1.5)
    temperatures: tuple[float, float] = (1 / HIGHEST, 1 / LOWEST)
    depth_bound: bool = True
    width_bound: bool = True
    policy: Literal["paper", "product", "cost-aware"] = "paper"
    most_exits: int = 3

    def suggest(self, trial: optuna.Trial | optuna.trial.FrozenTrial) -> Settings:
        """Settings for a trial; a policy "cost-aware" is put in by the search, which knows the prices."""
        chosen = {trial.suggest_categorical("exit 1", self.exit_layers)}
        for slot in range(2, min(self.most_exits, len(self.exit_layers)) + 1):
            chosen.add(trial.suggest_categorical(f"exit {slot}", (0, *self.exit_layers)))
        if not self.depth_bound:
            chosen.add(self.exit_layers[-1])
        layers = tuple(sorted(chosen - {0}))
        return Settings(
            schedule=self._schedule(trial, layers),
            threshold=round(trial.suggest_float("threshold", *_THRESHOLDS), 3),
            max_width=trial.suggest_int("max_width", *_WIDTHS) if self.width_bound else None,
            exit_layers=layers,
            policy=self._policy(trial),
        )

    def values(self, settings: Settings, num_layers: int) -> dict[str, Any]:
        """What `suggest` has to choose for `settings`, or for what comes near them where this space does not hold them.

        Raises:
            SettingsError: they do not fit a model with these exits.
        """
        temperatures = settings.plan(self.exit_layers, num_layers).exit_temperatures
        layers = list(temperatures)[: self.most_exits]
        made: dict[str, Any] = {f"exit {slot}": layer for slot, layer in enumerate(layers, start=1)}
        slots = range(len(layers) + 1, min(self.most_exits, len(self.exit_layers)) + 1)
        made |= {f"exit {slot}": 0 for slot in slots}
        made["threshold"] = float(np.clip(settings.threshold, *_THRESHOLDS))
        if self.width_bound:
            widest = _WIDTHS[1] if settings.max_width is None else settings.max_width
            made["max_width"] = int(np.clip(widest, *_WIDTHS))
        if self.schedule == "linear":
            made["alpha"] = float(np.clip(getattr(settings.schedule, "alpha", 0.0), *self.alphas))
        if self.schedule == "per layer":
            for layer in self.exit_layers:
                made[f"T{layer}"] = float(np.clip(temperatures.get(layer, 1.0), *self.temperatures))
        if self.policy == "product":
            made["least"] = float(np.clip(getattr(settings.policy, "least", 0.0), *_LEAST))
        return made

    def _schedule(self, trial: optuna.Trial | optuna.trial.FrozenTrial, layers: Sequence[int]) -> Schedule:
        if self.schedule == "none":
            return NoAnnealing()
        if self.schedule == "linear":
            return LinearAnnealing(round(trial.suggest_float("alpha", *self.alphas), 2))
        values = {layer: trial.suggest_float(f"T{layer}", *self.temperatures, log=True) for layer in self.exit_layers}
        return PerLayerTemperature({layer: round(values[layer], 2) for layer in layers})

    def _policy(self, trial: optuna.Trial | optuna.trial.FrozenTrial) -> Policy:
        if self.policy == "product":
            return ProductOfConfidences(round(trial.suggest_float("least", *_LEAST), 3))
        return PaperBounds()


def ablations(exit_layers: Sequence[int]) -> dict[str, Space]:
    """The paper's method, what its ablations take out of it, and what it leaves open. Each is searched by itself, so
    that each is at its best."""
    layers = tuple(exit_layers)
    paper = {"schedule": "linear", "alphas": (0.0, 1.5)}
    return {
        "linear annealing": Space(layers, **paper),  # type: ignore[arg-type]
        "no annealing": Space(layers, schedule="none"),
        "no depth bound": Space(layers, depth_bound=False, **paper),  # type: ignore[arg-type]
        "no width bound": Space(layers, width_bound=False, **paper),  # type: ignore[arg-type]
        "any alpha": Space(layers),
        "any temperatures": Space(layers, schedule="per layer"),
        "product of confidences": Space(layers, policy="product"),
        "cost-aware": Space(layers, policy="cost-aware"),
    }


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        settings: the best.
        predicted: its speedup on the texts that were searched on: the geometric mean over kinds.
        trials: one row a trial: `predicted` and what was chosen.
    """

    settings: Settings
    predicted: float
    trials: pd.DataFrame = field(repr=False)


def search(
    records: Mapping[str, DenseRecord],
    costs: Costs,
    space: Space,
    *,
    trials: int = 200,
    starts: Sequence[Settings] = (),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """The settings of `space` with the best predicted speedup, as the geometric mean over kinds (Optuna's TPE).

    Args:
        records: by kind.
        costs: prices.
        space: what may be chosen.
        trials: at least 1.
        starts: tried before them, as near as the space comes to each.
        seed: of the search.
        progress: called with (trials done, trials in all).
    """
    if trials < 1:
        raise SettingsError(f"trials={trials}: use at least 1")
    whole = len(starts) + trials
    tried: dict[int, Settings] = {}

    def objective(trial: optuna.Trial) -> float:
        settings = space.suggest(trial)
        if space.policy == "cost-aware":
            settings = settings.replace(policy=cost_aware(costs, records, settings))
        tried[trial.number] = settings
        if progress is not None:
            progress(trial.number + 1, whole)
        return mean_speedup(records, costs, settings)

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        for start in starts:
            study.enqueue_trial(space.values(start, costs.num_layers))
        study.optimize(objective, n_trials=whole)
    finally:
        optuna.logging.set_verbosity(verbosity)
    rows: list[dict[str, Any]] = [{"predicted": trial.value, **trial.params} for trial in study.trials]
    return Found(tried[study.best_trial.number], float(study.best_value), pd.DataFrame(rows))


def mean_speedup(records: Mapping[str, DenseRecord], costs: Costs, settings: Settings) -> float:
    """Predicted speedup: the geometric mean over kinds."""
    return float(np.exp(np.log(costs.speedup(replay_kinds(records, [settings])[:, 0])).mean()))


def held_out(
    records: Mapping[str, DenseRecord],
    costs: Costs,
    settings: Mapping[str, Settings],
    *,
    reference: str | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Predicted speedups on texts that were not searched on, with 95 % intervals.

    The intervals are from a bootstrap over texts within each kind and over the repeats of the cost measurement, drawn
    alike for all settings, so that ratios are paired.

    Args:
        records: by kind.
        costs: prices.
        settings: by name.
        reference: the name that the others are set against; None = the first.
        draws: of the bootstrap.
        seed: of the draws.

    Returns:
        One row a name: `predicted`, `low`, `high`; `ratio`, `ratio_low`, `ratio_high`: its speed relative to the
        reference's, above 1 = faster.
    """
    names = list(settings)
    reference = names[0] if reference is None else reference
    if reference not in settings:
        raise SettingsError(f"reference={reference!r}: use one of {', '.join(map(repr, names))}")
    rng = np.random.default_rng(seed)
    repeats = len(costs.plain)
    picks = rng.multinomial(repeats, np.full(repeats, 1 / repeats), size=draws) / repeats
    picks[0] = 1 / repeats  # draw 0 is what was seen
    drawn = Costs(picks @ costs.fits, picks @ costs.plain, costs.num_layers, costs.hardware)
    logs = np.zeros((draws, len(names)))
    for record in records.values():
        counts = replay_many(record, list(settings.values()))
        texts = counts.shape[1]
        weights = rng.multinomial(texts, np.full(texts, 1 / texts), size=draws)
        weights[0] = 1
        pooled = np.einsum("dt,stc->dsc", weights, counts)
        logs += np.log(drawn.each_speedup(pooled)) / len(records)
    ratios = logs - logs[:, [names.index(reference)]]
    table = {"name": names}
    for column, values in (("predicted", logs), ("ratio", ratios)):
        low, high = np.exp(np.quantile(values, [0.025, 0.975], axis=0))
        suffix = "" if column == "predicted" else "ratio_"
        table |= {column: np.exp(values[0]), f"{suffix}low": low, f"{suffix}high": high}
    return pd.DataFrame(table)


def halves(records: Mapping[str, DenseRecord]) -> tuple[dict[str, DenseRecord], dict[str, DenseRecord]]:
    """Every other text of each kind to search on, and the rest to judge on.

    Raises:
        SettingsError: a kind has fewer than two texts.
    """
    for kind, record in records.items():
        if len(record.token_ids) < 2:
            raise SettingsError(f"kind {kind!r} has {len(record.token_ids)} texts: record at least 2 to halve them")
    return (
        {kind: record.take(range(0, len(record.token_ids), 2)) for kind, record in records.items()},
        {kind: record.take(range(1, len(record.token_ids), 2)) for kind, record in records.items()},
    )
