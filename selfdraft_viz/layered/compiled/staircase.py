"""The staircase of a decode whose layers run through the compiled kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from selfdraft_viz.layered.compiled.model import CompiledModel
from selfdraft_viz.layered.staircase import Staircase

if TYPE_CHECKING:
    from selfdraft_viz.layered.model import LayeredModel

_MOST_ROWS = 64  # of one pass; longer prompts pass in pieces, which changes no bit


class CompiledStaircase(Staircase):
    """A `Staircase` whose keys are (L, key-value heads, head width, capacity), so that one row's scores are sums over
    contiguous memory, and whose values are (L, key-value heads, capacity, head width)."""

    def __init__(self, model: LayeredModel, compiled: CompiledModel, capacity: int) -> None:
        self._compiled = compiled
        super().__init__(model, capacity)

    def _allocate(self) -> None:
        compiled, capacity = self._compiled, self._capacity
        heads = (self._model.num_layers, compiled.kv_heads)
        self._states = np.zeros((capacity, self._model.width), np.float32)
        self._hidden = torch.from_numpy(self._states)
        self._all_keys = np.zeros((*heads, compiled.head_width, capacity), np.float32)
        self._all_values = np.zeros((*heads, capacity, compiled.head_width), np.float32)
        self._rope_tables = compiled.rope(self._model, capacity)
        self._table = compiled.embedding.weight.detach().numpy()

    def _embed(self, token_ids: list[int], start: int, stop: int) -> None:
        self._states[start:stop] = self._table[token_ids]

    @torch.inference_mode()
    def logits(self, start: int, stop: int) -> Tensor:
        return torch.from_numpy(self._compiled.logits(self._states[start:stop]))

    def _run(self, first_layer: int, last_layer: int, start: int, stop: int) -> None:
        for piece in range(start, stop, _MOST_ROWS):
            self._compiled.run(
                first_layer,
                last_layer,
                piece,
                min(piece + _MOST_ROWS, stop),
                self._states,
                self._all_keys,
                self._all_values,
                *self._rope_tables,
            )
        self._lengths[first_layer : last_layer + 1] = [stop] * (last_layer - first_layer + 1)
