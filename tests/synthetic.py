"""Dense records of exits whose logits and true tokens are drawn, so that the right answers are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from selfdraft_viz.lab import record as record_module
from selfdraft_viz.lab.record import DenseRecord


def of_logits(
    logits: NDArray[np.float64], true_ids: NDArray[np.int64], exit_layers: Sequence[int], num_layers: int, **fields
) -> DenseRecord:
    """(texts, positions, exits, tokens) logits and (texts, positions) true tokens."""
    best = logits.max(axis=-1)
    behind = logits - best[..., None]
    partition = [np.log(np.exp(behind * inverse).sum(axis=-1)) for inverse in record_module._nodes()]
    true = np.broadcast_to(true_ids[..., None, None], (*logits.shape[:-1], 1))
    return DenseRecord(
        np.zeros(true_ids.shape, dtype=np.int32),
        true_ids.astype(np.int32),
        tuple(exit_layers),
        num_layers,
        logits.argmax(axis=-1).astype(np.int32),
        np.stack(partition, axis=-1).astype(np.float32),
        top_logits=best.astype(np.float32),
        true_gaps=np.take_along_axis(behind, true, axis=-1)[..., 0].astype(np.float32),
        final_probabilities=np.zeros(best.shape, dtype=np.float32),
        **fields,
    )


def record(
    scales: Sequence[float],
    *,
    texts: int = 60,
    positions: int = 50,
    tokens: int = 12,
    seed: int = 0,
    num_layers: int = 10,
) -> DenseRecord:
    """Exits at layers 1, 2, ... whose logits are the true ones times a factor each.

    The true token is drawn from softmax(z), so an exit with factor k is calibrated at the exit temperature k.
    """
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(texts, positions, tokens)) * 2
    true_ids = (logits + rng.gumbel(size=logits.shape)).argmax(axis=-1)
    scaled = np.stack([logits * scale for scale in scales], axis=2)
    return of_logits(scaled, true_ids, range(1, len(scales) + 1), num_layers)
