"""Overconfidence, seen and mended, in one call: `calibration_study(model, texts)` on any supported model.

Half of the texts are fitted on, the other half judges: how calibrated every exit is under every schedule, and what the
schedules are worth in accepted drafts. Replaying a record needs no torch, fitting does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from selfdraft_viz.errors import PromptError
from selfdraft_viz.lab.calibration import calibration_table, first_exits, reliability_table, threshold_curve
from selfdraft_viz.lab.fitting import fit_linear, fit_temperatures, negative_log_likelihood
from selfdraft_viz.lab.record import HIGHEST, LOWEST, DenseRecord
from selfdraft_viz.lab.recording import Documents, record_continuations, record_text
from selfdraft_viz.lab.replay import Replay, replay
from selfdraft_viz.schedules import LinearAnnealing, NoAnnealing, Schedule
from selfdraft_viz.settings import Settings

if TYPE_CHECKING:
    from selfdraft_viz.heads import ExitHeads
    from selfdraft_viz.model import Model

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
_Z = 1.959963984540054


@dataclass(frozen=True)
class CalibrationStudy:
    """What `calibration_study` found; every figure is of texts that nothing was fitted on.

    Attributes:
        records: the dense records, by (heads, text), text being "given" or "own".
        schedules: by (heads, text) the schedules that were tried, by name.
        calibration: `calibration_table` of each, with columns `heads`, `text`, `schedule`, and `likelihood`, the mean
            negative log-likelihood of agreement in nats.
        worth: on the model's own text, by `heads` and `schedule`: `threshold`, the one with the fewest layer passes per
            token on the fitting half; on the other half `layer_passes_per_token` with its 95 % interval `..._low`,
            `..._high`, `acceptance_rate`, `accepted_per_token`, `tokens_per_round`; and `saved`, the layer passes per
            token fewer than without annealing, text by text, with `saved_low`, `saved_high`.
    """

    records: dict[tuple[str, str], DenseRecord]
    schedules: dict[tuple[str, str], dict[str, Schedule]]
    calibration: pd.DataFrame
    worth: pd.DataFrame


def calibration_study(
    model: Model,
    texts: Documents | Mapping[str, Documents],
    *,
    heads: Mapping[str, ExitHeads | str] | None = None,
    count: int = 20,
    window: int = 128,
    prompt_tokens: int = 48,
    max_new_tokens: int = 96,
    threshold: float = 0.6,
    max_width: int | None = 6,
    batch_size: int = 8,
    progress: bool = True,
) -> CalibrationStudy:
    """Record, fit, judge.

    Args:
        model: any supported model.
        texts: documents that it was not trained on, or documents by kind.
        heads: sets of exit heads by name; None = the logit lens, and the model's own heads where those are trained.
        count: windows of given text, and continuations, of each kind.
        window, prompt_tokens, max_new_tokens: tokens of each; see `record_text` and `record_continuations`.
        threshold: for the coverage and the spurious confidence in the tables.
        max_width: of the rounds that are replayed.
        batch_size: texts in a pass.
        progress: show progress bars.

    Raises:
        PromptError: there is too little text.
    """
    if heads is None:
        heads = {"logit lens": "logit lens", **({"trained": model.heads} if model.heads.trained else {})}
    records = {}
    for name, chosen in heads.items():
        read = model.with_heads(chosen)
        records[name, "given"] = record_text(
            read, texts, window=window, count=count, batch_size=batch_size, progress=progress
        )
        records[name, "own"] = record_continuations(
            read, texts, prompt_tokens=prompt_tokens, max_new_tokens=max_new_tokens, count=count,
            batch_size=batch_size, progress=progress,
        )  # fmt: skip
    return study_records(records, threshold=threshold, max_width=max_width)


def study_records(
    records: Mapping[tuple[str, str], DenseRecord], *, threshold: float = 0.6, max_width: int | None = 6
) -> CalibrationStudy:
    """The study of records that are there already, by (heads, text)."""
    schedules, calibration, worth = {}, [], []
    for (heads, text), dense in records.items():
        fitting, judging = dense.halves()
        schedules[heads, text] = tried_schedules(fitting)
        for name, schedule in schedules[heads, text].items():
            table = calibration_table(judging, schedule, threshold)
            likelihood = list(negative_log_likelihood(judging, schedule, "agreement").values())
            calibration.append(table.assign(likelihood=likelihood, heads=heads, text=text, schedule=name))
        if text == "own":
            worth.append(schedules_worth(fitting, judging, schedules[heads, text], max_width).assign(heads=heads))
    first = ["heads", "text", "schedule"]
    whole = pd.concat(calibration, ignore_index=True)
    return CalibrationStudy(
        dict(records),
        schedules,
        whole[first + [column for column in whole.columns if column not in first]],
        pd.concat(worth, ignore_index=True) if worth else pd.DataFrame(),
    )


def tried_schedules(fitting: DenseRecord) -> dict[str, Schedule]:
    """No annealing, SpecBound's with alpha 1, and the two fits to agreement."""
    return {
        "none": NoAnnealing(),
        "alpha = 1": LinearAnnealing(1.0),
        "best linear": fit_linear(fitting, "agreement"),
        "fitted per layer": fit_temperatures(fitting, "agreement"),
    }


def schedules_worth(
    fitting: DenseRecord, judging: DenseRecord, schedules: Mapping[str, Schedule], max_width: int | None = 6
) -> pd.DataFrame:
    """The best that each schedule does with one threshold, chosen on `fitting`; see `CalibrationStudy.worth`.

    A schedule and a threshold are partners: comparing schedules at one threshold would compare thresholds.

    Raises:
        PromptError: there are fewer than two texts to judge on.
    """
    if len(judging.token_ids) < 2:
        raise PromptError("at least two texts are needed to judge a schedule: record more")
    rows, passes = [], {}
    for name, schedule in schedules.items():
        tried = [Settings(schedule, threshold, max_width=max_width) for threshold in THRESHOLDS]
        best = min(tried, key=lambda settings: replay(fitting, settings).layer_passes_per_token)
        each = [replay(judging.take([text]), best) for text in range(len(judging.token_ids))]
        whole = replay(judging, best)
        passes[name] = np.array([one.layer_passes_per_token for one in each])
        middle, error = _mean(passes[name])
        saved, saved_error = _mean(passes[next(iter(schedules))] - passes[name])
        rows.append(
            {
                "schedule": name,
                "threshold": best.threshold,
                "layer_passes_per_token": middle,
                "layer_passes_per_token_low": middle - _Z * error,
                "layer_passes_per_token_high": middle + _Z * error,
                "acceptance_rate": whole.acceptance_rate,
                "accepted_per_token": _accepted_per_token(whole),
                "tokens_per_round": whole.tokens_per_round,
                "saved": saved,
                "saved_low": saved - _Z * saved_error,
                "saved_high": saved + _Z * saved_error,
            }
        )
    return pd.DataFrame(rows)


def annealing_steps(
    record: DenseRecord, alphas: Sequence[float], threshold: float = 0.6
) -> dict[float, dict[str, pd.DataFrame]]:
    """What a slider over alpha moves: by alpha the tables `reliability`, `curve` (risk and coverage of all exits
    together, by threshold) and `exits` (the predicted exits at `threshold`)."""
    steps = {}
    for alpha in alphas:
        schedule = LinearAnnealing(alpha)
        steps[float(alpha)] = {
            "reliability": reliability_table(record, schedule),
            "curve": threshold_curve(record, schedule, sorted({*THRESHOLDS, 0.01, 0.99, threshold})),
            "exits": first_exits(record, Settings(schedule, threshold, max_width=None)),
        }
    return steps


def straightness(schedule: Schedule, record: DenseRecord) -> pd.DataFrame:
    """A schedule's temperatures beside the straight line through (L, 1) that lies closest to them (least squares).

    Returns:
        One row an exit: `exit_layer`, `temperature`, `line`; the same `alpha` of the line in each; and `limited`,
        whether the temperature lies at an end of the record's range, where a fit stops.
    """
    temperatures = schedule.temperatures(record.exit_layers, record.num_layers)
    rise = np.array([1 - layer / record.num_layers for layer in record.exit_layers])
    values = np.array(list(temperatures.values()))
    alpha = float((rise * (values - 1)).sum() / (rise**2).sum())
    limited = (values < 1.01 / HIGHEST) | (values > 0.99 / LOWEST)
    columns = {"exit_layer": record.exit_layers, "temperature": values, "line": 1 + alpha * rise, "alpha": alpha}
    return pd.DataFrame({**columns, "limited": limited})


def _accepted_per_token(made: Replay) -> float:
    return made.accepted / max(1, made.new_tokens)


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean over texts and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
