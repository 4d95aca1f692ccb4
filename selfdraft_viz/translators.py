"""Translators: what a trained exit head does to a hidden state before the model's own final norm and LM head.

The tuned lens's affine map (Belrose et al., arXiv 2303.08112), as a whole matrix, or as the identity and a product of
two thin ones: 2 * rank * width multiplications a row, and as many numbers in a file, instead of width * width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Affine(NamedTuple):
    """h -> weight h + bias."""

    weight: Tensor
    """(width, width)"""
    bias: Tensor
    """(width,)"""

    def __call__(self, hidden_states: Tensor) -> Tensor:
        """(rows, width) -> (rows, width)."""
        return F.linear(hidden_states, self.weight, self.bias)

    def fits(self, width: int) -> bool:
        return self.weight.shape == (width, width) and self.bias.shape == (width,)

    def matrix(self) -> Tensor:
        """(width, width) what a row is multiplied with."""
        return self.weight


class LowRank(NamedTuple):
    """h -> h + up (down h) + bias. The whole matrix is never made."""

    up: Tensor
    """(width, rank)"""
    down: Tensor
    """(rank, width)"""
    bias: Tensor
    """(width,)"""

    def __call__(self, hidden_states: Tensor) -> Tensor:
        """(rows, width) -> (rows, width)."""
        return hidden_states + F.linear(F.linear(hidden_states, self.down), self.up, self.bias)

    def fits(self, width: int) -> bool:
        thin = self.up.ndim == self.down.ndim == 2 and self.up.shape[1] == self.down.shape[0]
        return thin and self.up.shape[0] == self.down.shape[1] == width and self.bias.shape == (width,)

    def matrix(self) -> Tensor:
        """(width, width) what a row is multiplied with."""
        return torch.eye(len(self.up), device=self.up.device, dtype=self.up.dtype) + self.up @ self.down


Translator = Affine | LowRank


def as_translator(tensors: tuple[Tensor, ...]) -> Translator:
    """(weight, bias) or (up, down, bias) -> the translator that they are.

    Raises:
        ValueError: they are neither two nor three.
    """
    if isinstance(tensors, Affine | LowRank):
        return tensors
    if len(tensors) not in (2, 3):
        raise ValueError(f"a translator of {len(tensors)} tensors: use (weight, bias), or (up, down, bias)")
    return Affine(*tensors) if len(tensors) == 2 else LowRank(*tensors)


def moved(translator: Translator, device: torch.device | str, dtype: torch.dtype) -> Translator:
    """A copy on `device` in `dtype`."""
    return as_translator(tuple(tensor.to(device, dtype) for tensor in translator))
