"""Is an exit as right as it is sure? Reliability, calibration error, risk and coverage of exits. No torch here.

Being *right* is agreeing with the final layer's token: that is what verification asks. The confidence is that of
decoding, `max softmax(z / T_l)`, under any schedule.

Rows of one text are not independent, so intervals are taken over *units*: the texts, or pieces of them where there are
few (Liang & Zeger, 1986: the cluster-robust variance).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from selfdraft_viz.errors import PromptError, SettingsError
from selfdraft_viz.lab.record import DenseRecord
from selfdraft_viz.schedules import NoAnnealing, Schedule
from selfdraft_viz.settings import Settings

BINS = 10
_UNITS = 24  # a record of fewer texts is cut into at least so many pieces
_Z = 1.959963984540054  # of a 95 % interval


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error: by how much confidence and agreement differ, on average over rows.

    Attributes:
        value: 0..1. Each bin's gap counts with the sign that it has in the *other* half of the units, so that noise
            does not pass for miscalibration: of a calibrated exit it is 0 on average, where the usual estimate is not.
        low, high: a 95 % interval, from below `value`, which is too low where a gap is hardly more than noise, to above
            `plug_in`, which is too high; cut at 0.
        plug_in: the usual estimate, the mean of the bins' absolute gaps (Guo et al., ICML 2017).
        bias: mean confidence - agreement; above 0 is overconfident.
    """

    value: float
    low: float
    high: float
    plug_in: float
    bias: float


def calibration_error(
    confidence: ArrayLike, agrees: ArrayLike, units: ArrayLike | None = None, *, bins: int = BINS
) -> CalibrationError:
    """The expected calibration error over equally wide bins of confidence.

    Args:
        confidence: (rows,) in 0..1.
        agrees: (rows,) whether the exit's token was the final layer's.
        units: (rows,) which independent unit, such as the text, a row belongs to; None = each its own.
        bins: how many bins.

    Raises:
        PromptError: there are fewer than two units.
    """
    sure, right, unit = _checked(confidence, agrees, units)
    names, unit = np.unique(unit, return_inverse=True)
    if len(names) < 2:
        raise PromptError("a calibration error needs at least two texts: record more of them")
    place = _bin(sure, bins)
    gaps = np.zeros((len(names), bins))  # a unit's summed confidence - agreement, by bin
    np.add.at(gaps, (unit, place), sure - right)
    rows = np.bincount(unit, minlength=len(names))
    half = np.random.default_rng(0).permutation(len(names)) % 2
    inside = np.stack([gaps[half == 0].sum(axis=0), gaps[half == 1].sum(axis=0)])
    signed = (np.sign(inside[1 - half]) * gaps).sum(axis=1)  # each bin's gap, with its sign in the other half
    value, error = _ratio(signed, rows)
    error = np.sqrt(error**2 + _doubt_of_signs(gaps, inside) / rows.sum() ** 2)
    plug_in = float(np.abs(gaps.sum(axis=0)).sum() / rows.sum())
    low, high = max(0.0, value - _Z * error), max(value, plug_in) + _Z * error
    return CalibrationError(max(0.0, value), low, high, plug_in, float(gaps.sum() / rows.sum()))


def reliability(
    confidence: ArrayLike, agrees: ArrayLike, units: ArrayLike | None = None, *, bins: int = BINS
) -> pd.DataFrame:
    """The reliability diagram as a table (DeGroot & Fienberg, 1983): one row a bin of confidence that is not empty.

    Arguments as for `calibration_error`.

    Returns:
        `bin_low`, `bin_high`; `rows`; `confidence` (mean) and `agreement` (share) in the bin; `agreement_low` and
        `agreement_high`: its 95 % Wilson interval, for as many rows as would tell as much if they were independent.
    """
    sure, right, unit = _checked(confidence, agrees, units)
    place = _bin(sure, bins)
    table = []
    for index in range(bins):
        inside = place == index
        if not inside.any():
            continue
        share, low, high = share_with_interval(right[inside], unit[inside])
        table.append((index / bins, (index + 1) / bins, int(inside.sum()), sure[inside].mean(), share, low, high))
    names = ["bin_low", "bin_high", "rows", "confidence", "agreement", "agreement_low", "agreement_high"]
    return pd.DataFrame(table, columns=names)


def risk_coverage(confidence: ArrayLike, agrees: ArrayLike, *, points: int = 200) -> pd.DataFrame:
    """Agreement against coverage as the threshold falls (El-Yaniv & Wiener, JMLR 2010): rows that are equally sure come
    in together.

    Args:
        confidence, agrees: (rows,), as for `calibration_error`.
        points: the most rows of the table; they are spread evenly over coverage.

    Returns:
        `threshold`; `coverage`, the share of rows at least that sure; `agreement` among those.
    """
    sure, right, _ = _checked(confidence, agrees, None)
    order = np.argsort(-sure, kind="stable")
    sure, right = sure[order], right[order]
    last = np.flatnonzero(np.append(sure[1:] != sure[:-1], True))  # of those that are equally sure
    if len(last) > points:
        last = last[np.unique(np.linspace(0, len(last) - 1, points).round().astype(int))]
    table = {
        "threshold": sure[last],
        "coverage": (last + 1) / len(sure),
        "agreement": np.cumsum(right)[last] / (last + 1),
    }
    return pd.DataFrame(table)


def share_with_interval(hits: ArrayLike, units: ArrayLike) -> tuple[float, float, float]:
    """A share of rows and its 95 % Wilson interval (1927), for as many rows as would tell as much if independent.

    Args:
        hits: (rows,) true or false.
        units: (rows,) which independent unit a row belongs to.
    """
    right, (_, unit) = np.asarray(hits, dtype=float), np.unique(np.asarray(units), return_inverse=True)
    rows = len(right)
    if rows == 0:
        return float("nan"), float("nan"), float("nan")
    share = float(right.mean())
    effective = float(rows)
    per_unit = np.bincount(unit)
    if 0 < share < 1 and 1 < len(per_unit) < rows:
        _, error = _ratio(np.bincount(unit, weights=right), per_unit)
        effective = min(effective, share * (1 - share) / max(error**2, 1e-12))
    middle = (share + _Z**2 / (2 * effective)) / (1 + _Z**2 / effective)
    spread = np.sqrt(share * (1 - share) / effective + _Z**2 / (4 * effective**2))
    half = _Z / (1 + _Z**2 / effective) * spread
    return share, float(max(0.0, middle - half)), float(min(1.0, middle + half))


def calibration_table(
    record: DenseRecord, schedule: Schedule | None = None, threshold: float = 0.6, *, bins: int = BINS
) -> pd.DataFrame:
    """How calibrated each exit is under a schedule, over the rows after the prompts.

    Args:
        record: of text that neither the heads nor the schedule were fitted on.
        schedule: None = no annealing.
        threshold: for the last four columns.
        bins: of confidence, for the calibration error.

    Returns:
        One row an exit: `exit_layer`; `temperature`; `rows`; `agreement` and `confidence`, means over all rows; `ece`
        with `ece_low`, `ece_high` and `ece_plug_in`, and `bias` (see `CalibrationError`); `coverage`, the share of rows
        with confidence >= threshold; `accepted`, the agreement among those; `spurious`, the share of all rows that are
        as sure and wrong, with `spurious_low`, `spurious_high` (95 %).
    """
    temperatures = _temperatures(record, schedule)
    table = []
    for layer, confidence, agrees, units in exit_rows(record, schedule):
        error = calibration_error(confidence, agrees, units, bins=bins)
        exits = confidence >= threshold
        spurious, low, high = share_with_interval(exits & ~agrees, units)
        table.append(
            {
                "exit_layer": layer,
                "temperature": temperatures[layer],
                "rows": len(agrees),
                "agreement": float(agrees.mean()),
                "confidence": float(confidence.mean()),
                "ece": error.value,
                "ece_low": error.low,
                "ece_high": error.high,
                "ece_plug_in": error.plug_in,
                "bias": error.bias,
                "coverage": float(exits.mean()),
                "accepted": float(agrees[exits].mean()) if exits.any() else float("nan"),
                "spurious": spurious,
                "spurious_low": low,
                "spurious_high": high,
            }
        )
    return pd.DataFrame(table)


def reliability_table(record: DenseRecord, schedule: Schedule | None = None, *, bins: int = BINS) -> pd.DataFrame:
    """`reliability` of every exit under a schedule, with a column `exit_layer`."""
    parts = [
        reliability(confidence, agrees, units, bins=bins).assign(exit_layer=layer)
        for layer, confidence, agrees, units in exit_rows(record, schedule)
    ]
    return pd.concat(parts, ignore_index=True)


def risk_coverage_table(record: DenseRecord, schedule: Schedule | None = None, *, points: int = 200) -> pd.DataFrame:
    """`risk_coverage` of every exit under a schedule, with a column `exit_layer`."""
    parts = [
        risk_coverage(confidence, agrees, points=points).assign(exit_layer=layer)
        for layer, confidence, agrees, _ in exit_rows(record, schedule)
    ]
    return pd.concat(parts, ignore_index=True)


def first_exits(record: DenseRecord, settings: Settings) -> pd.DataFrame:
    """Where each row would exit, were it reached: the predicted exits of `settings`.

    Returns:
        One row an exit layer in use, and last one for rows that exit nowhere (`exit_layer` is L): `exit_layer`;
        `rows`; `share` of all rows; `agreement`, the share of its rows whose exit token is the final layer's (of the
        last one NaN).

    Raises:
        SettingsError: the settings do not fit the record.
    """
    first, right, layers = _decisions(record, settings)
    table = []
    for index, layer in enumerate(layers):
        here = first == index
        table.append((layer, int(here.sum()), here.mean(), right[here].mean() if here.any() else float("nan")))
    hard = first == len(layers)
    table.append((record.num_layers, int(hard.sum()), hard.mean(), float("nan")))
    return pd.DataFrame(table, columns=["exit_layer", "rows", "share", "agreement"])


def threshold_curve(
    record: DenseRecord,
    schedule: Schedule | None,
    thresholds: Sequence[float],
    exit_layers: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Risk and coverage of all exits together: a row leaves at its first exit that is sure enough.

    Returns:
        One row a threshold: `threshold`; `coverage`, the share of rows that exit somewhere; `agreement` among those;
        `exit_depth`, their mean depth in layers.
    """
    table = []
    for threshold in thresholds:
        used = None if exit_layers is None else tuple(exit_layers)
        settings = Settings(schedule or NoAnnealing(), threshold, exit_layers=used)
        first, right, layers = _decisions(record, settings)
        exited = first < len(layers)
        depth = np.append(layers, record.num_layers)[first]
        table.append(
            (
                threshold,
                exited.mean(),
                right[exited].mean() if exited.any() else float("nan"),
                depth[exited].mean() if exited.any() else float("nan"),
            )
        )
    return pd.DataFrame(table, columns=["threshold", "coverage", "agreement", "exit_depth"])


def confident_mistakes(
    record: DenseRecord, schedule: Schedule | None = None, *, threshold: float = 0.7, per_exit: int | None = 5
) -> pd.DataFrame:
    """Rows that an exit is at least `threshold` sure of, and wrong about; the surest of each exit first.

    Returns:
        `exit_layer`, `kind`, `text` and `position` (indices into the record), `confidence`, `exit_id` (what the exit
        says), `true_id` (what the final layer says), `final_probability` (the final layer's of the exit's token).
    """
    confidences = record.confidences(_temperatures(record, schedule))
    parts = []
    for index, layer in enumerate(record.exit_layers):
        wrong = ~record.agrees[..., index] & (confidences[..., index] >= threshold)
        wrong[:, : record.start] = False
        text, position = np.nonzero(wrong)
        at = (text, position, index)
        probabilities = record.final_probabilities
        found = pd.DataFrame(
            {
                "exit_layer": layer,
                "kind": [record.kinds[i] for i in text] if record.kinds else "",
                "text": text,
                "position": position,
                "confidence": confidences[at],
                "exit_id": record.exit_ids[at],
                "true_id": record.true_ids[text, position],
                "final_probability": float("nan") if probabilities is None else probabilities[at],
            }
        ).sort_values("confidence", ascending=False, kind="stable")
        parts.append(found if per_exit is None else found.head(per_exit))
    return pd.concat(parts, ignore_index=True)


def exit_rows(
    record: DenseRecord, schedule: Schedule | None = None
) -> list[tuple[int, NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]]:
    """By exit: its layer, and over the rows after the prompts (rows,) confidences, agreement and units."""
    confidences = record.confidences(_temperatures(record, schedule))[:, record.start :]
    agrees = record.agrees[:, record.start :]
    units = record_units(record)
    return [
        (layer, confidences[..., index].ravel(), agrees[..., index].ravel(), units)
        for index, layer in enumerate(record.exit_layers)
    ]


def record_units(record: DenseRecord) -> NDArray[np.int64]:
    """(rows,) the unit of every row after the prompts: its text, or of few texts a piece of it."""
    texts, positions = record.token_ids[:, record.start :].shape
    pieces = min(positions, -(-_UNITS // texts))
    piece = np.arange(positions) * pieces // positions
    return (np.arange(texts)[:, None] * pieces + piece).ravel()


def _decisions(record: DenseRecord, settings: Settings) -> tuple[NDArray, NDArray, NDArray]:
    """(rows,) the index of the first exit in use that is sure enough, their number where none is; (rows,) whether its
    token is the final layer's; and the layers of those exits."""
    plan = settings.plan(record.exit_layers, record.num_layers)
    used = [record.exit_layers.index(layer) for layer in plan.exit_temperatures]
    temperatures = {layer: plan.exit_temperatures.get(layer, 1.0) for layer in record.exit_layers}
    confidences = record.confidences(temperatures)[:, record.start :][..., used]
    exits = (confidences >= plan.threshold).reshape(-1, len(used))
    agrees = record.agrees[:, record.start :][..., used].reshape(-1, len(used))
    first = np.where(exits.any(axis=1), exits.argmax(axis=1), len(used))
    right = np.take_along_axis(np.pad(agrees, ((0, 0), (0, 1))), first[:, None], axis=1)[:, 0]
    return first, right, np.array([record.exit_layers[index] for index in used])


def _temperatures(record: DenseRecord, schedule: Schedule | None) -> dict[int, float]:
    return (schedule or NoAnnealing()).temperatures(record.exit_layers, record.num_layers)


def _checked(confidence: ArrayLike, agrees: ArrayLike, units: ArrayLike | None) -> tuple[NDArray, NDArray, NDArray]:
    sure, right = np.asarray(confidence, dtype=float), np.asarray(agrees, dtype=float)
    unit = np.arange(len(sure)) if units is None else np.asarray(units)
    if not (sure.ndim == 1 and sure.shape == right.shape == unit.shape and len(sure)):
        raise SettingsError(
            f"confidence {sure.shape}, agrees {right.shape} and units {unit.shape}: give one value a row, of one row "
            "or more"
        )
    if not ((sure >= 0) & (sure <= 1 + 1e-9)).all():
        raise SettingsError("a confidence is not in 0..1: give max softmax(z / T)")
    return sure, right, unit


def _bin(confidence: NDArray, bins: int) -> NDArray[np.int64]:
    if bins < 1:
        raise SettingsError(f"bins={bins}: use at least 1")
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)


def _doubt_of_signs(gaps: NDArray, inside: NDArray) -> float:
    """What the two halves' signs add to the variance of the summed gap: each half lends its own to the other, so where
    a sign is in doubt they err together, by Cov(sign(b) a, sign(a) b) = E|a| E|b| - E[sign a] E[a] E[sign b] E[b].

    Args:
        gaps: (units, bins) summed gaps; inside: (2, bins) those of the halves, taken as normal.
    """
    mean = inside.mean(axis=0)
    spread = np.sqrt(np.maximum(gaps.var(axis=0) * len(gaps) / 2, 1e-300))
    certain = mean * np.vectorize(math.erf)(mean / (math.sqrt(2) * spread))
    absolute = spread * math.sqrt(2 / math.pi) * np.exp(-((mean / spread) ** 2) / 2) + certain
    return float(2 * (absolute**2 - certain**2).sum())


def _ratio(totals: NDArray, sizes: NDArray) -> tuple[float, float]:
    """Sum of totals / sum of sizes over units, and its standard error."""
    count, whole = len(sizes), sizes.sum()
    value = totals.sum() / whole
    residuals = totals - value * sizes
    error = np.sqrt(count / max(1, count - 1) * (residuals**2).sum()) / whole
    return float(value), float(error)
