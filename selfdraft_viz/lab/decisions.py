"""What every recorded row would do under many settings at once. No torch here."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfdraft_viz.errors import SettingsError
from selfdraft_viz.lab import record as records
from selfdraft_viz.lab.record import DenseRecord
from selfdraft_viz.lab.rounds import Decisions, Stopping
from selfdraft_viz.policies import CostAware, PaperBounds, Policy, ProductOfConfidences
from selfdraft_viz.settings import Plan, Settings


def plans_of(record: DenseRecord, settings: Sequence[Settings]) -> list[Plan]:
    """Each setting worked out for the recorded model.

    Raises:
        SettingsError: one does not fit it, or has an exit temperature outside those that a record holds.
    """
    plans = [one.plan(record.exit_layers, record.num_layers) for one in settings]
    for plan in plans:
        for layer, temperature in plan.exit_temperatures.items():
            if not records.LOWEST <= 1 / temperature <= records.HIGHEST:
                raise SettingsError(
                    f"exit temperature {temperature:g} at exit layer {layer}: a dense record holds "
                    f"{1 / records.HIGHEST:g}..{1 / records.LOWEST:g}; choose a weaker schedule"
                )
    return plans


def decide(
    record: DenseRecord,
    plans: Sequence[Plan],
    end_of_sequence_ids: Collection[int] = (),
    *,
    with_confidence: bool = False,
) -> Decisions:
    """Decisions of the paper's rule (exit at the first confidence >= threshold) at every row from `record.start` on.

    Lanes are plan by plan, and text by text within a plan.
    """
    texts, rows = record.true_ids[:, record.start :].shape
    shape = (len(plans), texts * rows)
    used = np.array([[layer in plan.exit_temperatures for layer in record.exit_layers] for plan in plans])
    temperatures = np.array(
        [[plan.exit_temperatures.get(layer, 1.0) for layer in record.exit_layers] for plan in plans]
    )
    # c >= threshold as F <= -log(threshold): nothing is exponentiated
    bounds = np.array([math.inf if plan.threshold == 0 else -math.log(plan.threshold) for plan in plans])
    weights = interpolation_weights(1 / temperatures).astype(np.float32)

    layers = np.array(record.exit_layers, dtype=np.int32)
    deepest = np.array([max(plan.exit_temperatures) for plan in plans], dtype=np.int32)
    depth = np.broadcast_to(deepest[:, None], shape).copy()
    hard, right, ends = np.ones(shape, bool), np.zeros(shape, bool), np.zeros(shape, bool)
    checks = np.zeros(shape, np.int32)
    confidence = np.ones(shape) if with_confidence else None
    true_ids = record.true_ids[:, record.start :].ravel()
    for index, layer in enumerate(layers):
        some = used[:, index]
        if not some.any():
            continue
        partition = record.log_partition[:, record.start :, index].reshape(texts * rows, -1)
        surprise = weights[:, index] @ partition.T  # -log of the confidence
        checks += hard & some[:, None]
        exits = hard & (surprise <= bounds[:, None]) & some[:, None]
        exit_ids = record.exit_ids[:, record.start :, index].ravel()
        depth[exits] = layer
        if confidence is not None:
            confidence[exits] = np.exp(-np.maximum(surprise[exits], 0))
        right |= exits & (exit_ids == true_ids)
        if end_of_sequence_ids:
            ends |= exits & np.isin(exit_ids, list(end_of_sequence_ids))
        hard &= ~exits
    lanes = (len(plans) * texts, rows)
    return Decisions(
        depth.reshape(lanes),
        checks.reshape(lanes),
        hard.reshape(lanes),
        right.reshape(lanes),
        ends.reshape(lanes),
        None if confidence is None else confidence.reshape(lanes),
    )


def stopping(plans: Sequence[Plan], texts: int) -> Stopping | None:
    """What the policies of some plans stop at, in the lanes of `decide`; None where all are the paper's bounds."""
    policies = [plan.settings.policy for plan in plans]
    if all(type(policy) is PaperBounds for policy in policies):
        return None
    rules = np.repeat([_RULES[type(policy)](policy) for policy in policies], texts, axis=0)
    return Stopping(*np.ascontiguousarray(rules.T))


def is_known(policy: Policy) -> bool:
    """Whether `stopping` can tell what a policy does; of another one each decision has to be asked."""
    return type(policy) in _RULES


_RULES: dict[type[Policy], Callable[[Any], tuple[float, float, float]]] = {
    PaperBounds: lambda policy: (1.0, -1.0, math.inf),
    ProductOfConfidences: lambda policy: (1.0, policy.least, math.inf),
    CostAware: lambda policy: (policy.token_value, policy.draft_cost, policy.patience),
}
"""Value, cost and patience."""


def text_lengths(record: DenseRecord, end_of_sequence_ids: Collection[int] = ()) -> NDArray[np.intp]:
    """(texts,) tokens that decoding commits after the first one: all rows, or those up to an end of sequence."""
    true_ids = record.true_ids[:, record.start :]
    rows = true_ids.shape[1]
    if not end_of_sequence_ids:
        return np.full(len(true_ids), rows, dtype=np.intp)
    ids = list(end_of_sequence_ids)
    ended = np.isin(true_ids, ids)
    lengths = np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, rows)
    return np.where(np.isin(record.token_ids[:, record.start], ids), 0, lengths)


def interpolation_weights(inverse: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., NODES) weights that give F at (...) inverse temperatures from F at the nodes (barycentric formula)."""
    distance = np.log(inverse)[..., None] - records._log_nodes()
    hit = np.isclose(distance, 0, atol=1e-12)
    signs = np.where(np.arange(records.NODES) % 2 == 0, 1.0, -1.0)
    signs[[0, -1]] /= 2
    terms = signs / np.where(hit, 1.0, distance)
    return np.where(hit.any(axis=-1, keepdims=True), hit, terms / terms.sum(axis=-1, keepdims=True))
