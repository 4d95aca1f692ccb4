"""Dense records: what every exit says at every position of a text, so that any settings can be judged afterwards.

A confidence is needed at temperatures not known yet, and the logits are far too large to keep. It is
`max softmax(z / T) = exp(-F(1 / T))` with `F(b) = log sum exp(b * (z - max z))`, a smooth function of b: its values at
a few Chebyshev nodes give it anywhere between them (Trefethen, *Approximation Theory and Approximation Practice*, ch.
5). Making a record needs torch; reading one does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from selfdraft_viz.model import Model

NODES = 16
LOWEST, HIGHEST = 1 / 4, 2.0  # of 1 / T: exit temperatures 0.5..4


@dataclass(frozen=True)
class DenseRecord:
    """Every exit at every row of some texts of one length.

    Attributes:
        token_ids: (texts, positions) the texts.
        true_ids: (texts, positions) the model's own greedy token after each row.
        exit_layers: the exits, shallow first.
        num_layers: L.
        exit_ids: (texts, positions, exits) the token each exit would draft.
        log_partition: (texts, positions, exits, NODES) F at the nodes.
        start: rows before this one belong to the prompt but for its last, whose output is the first new token.
    """

    token_ids: NDArray[np.int32]
    true_ids: NDArray[np.int32]
    exit_layers: tuple[int, ...]
    num_layers: int
    exit_ids: NDArray[np.int32]
    log_partition: NDArray[np.float32]
    start: int = 0

    @property
    def agrees(self) -> NDArray[np.bool_]:
        """(texts, positions, exits): whether the exit's token is the final layer's."""
        return self.exit_ids == self.true_ids[..., None]

    def confidences(self, temperatures: dict[int, float]) -> NDArray[np.float64]:
        """(texts, positions, exits) confidences at exit temperatures {layer: T_l}, each in 0.5..4.

        Raises:
            ValueError: a temperature outside that range.
        """
        columns = []
        for index, layer in enumerate(self.exit_layers):
            inverse = 1 / temperatures[layer]
            if not LOWEST <= inverse <= HIGHEST:
                raise ValueError(
                    f"T={temperatures[layer]} at exit {layer}: a record holds temperatures {1 / HIGHEST}..{1 / LOWEST}"
                )
            columns.append(np.exp(-(self.log_partition[:, :, index] @ _interpolation(inverse))))
        return np.stack(columns, axis=-1)


def record(model: Model, windows: Tensor, *, start: int = 0, batch_size: int = 8) -> DenseRecord:
    """Run the model once over (texts, positions) token ids and note what each exit says at each row."""
    import torch

    from selfdraft_viz.lab.training import frozen_pass

    layered, heads = model.layered, model.heads
    inverse = torch.tensor(_nodes(), dtype=torch.float32)
    true_ids, exit_ids, partitions = [], [], []
    with torch.inference_mode():
        for batch in windows.split(batch_size):
            hidden_states, final = frozen_pass(layered, batch.to(model.device), heads.exit_layers)
            true_ids.append(layered.unembed(final).argmax(dim=-1).view(batch.shape).cpu())
            by_exit, ids = [], []
            for layer in heads.exit_layers:
                logits = heads.logits(layered, layer, hidden_states[layer]).float()
                best, column = logits.max(dim=-1)
                behind = logits - best[:, None]
                by_exit.append(torch.stack([(behind * b).exp_().sum(-1).log() for b in inverse.tolist()], dim=-1))
                ids.append(column if heads.vocabulary is None else heads.vocabulary.to(column.device)[column])
            exit_ids.append(torch.stack(ids, dim=-1).view(*batch.shape, -1).cpu())
            partitions.append(torch.stack(by_exit, dim=-2).view(*batch.shape, len(ids), NODES).cpu())
    return DenseRecord(
        windows.numpy().astype(np.int32),
        torch.cat(true_ids).numpy().astype(np.int32),
        heads.exit_layers,
        model.num_layers,
        torch.cat(exit_ids).numpy().astype(np.int32),
        torch.cat(partitions).numpy(),
        start,
    )


def _nodes() -> NDArray[np.float64]:
    """Inverse temperatures whose logarithms are the Chebyshev points of the second kind."""
    return np.exp(_log_nodes())


def _log_nodes() -> NDArray[np.float64]:
    angles = np.pi * np.arange(NODES) / (NODES - 1)
    low, high = np.log(LOWEST), np.log(HIGHEST)
    return (low + high) / 2 + (high - low) / 2 * np.cos(angles)


def _interpolation(inverse: float) -> NDArray[np.float64]:
    """(NODES,) weights that give F(inverse) from F at the nodes: the barycentric formula."""
    distance = np.log(inverse) - _log_nodes()
    hit = np.isclose(distance, 0, atol=1e-12)
    if hit.any():
        return hit.astype(np.float64)
    weights = np.where(np.arange(NODES) % 2 == 0, 1.0, -1.0)
    weights[[0, -1]] /= 2
    terms = weights / distance
    return terms / terms.sum()
