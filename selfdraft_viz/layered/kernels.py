"""Faster linear layers on a CPU: weights packed once for oneDNN's small-batch kernels.

A decoding pass multiplies a handful of rows with every weight. torch's default float32 path reads the weight slowly
there, and slower still for 2 to 16 rows than for one, which is just what verification needs to be cheap. oneDNN, given
the weight in its own blocked layout, does not. The layout is a second copy of the weight; the parameters themselves
stay as they are.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_ROWS_HINT = 16  # the batch size that the blocked layout is chosen for
_MOST_BYTES = 2 * 2**30  # larger models are not doubled in memory


class PackedLinear(nn.Linear):
    """An `nn.Linear` that also holds its weight packed. Made of an existing one by `pack_linears`, never
    constructed."""

    packed: Tensor
    packed_version: int
    """Of the weight that was packed: one that was changed since, as by an optimizer, is used as it is."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight
        if (
            torch.is_grad_enabled()
            or torch.is_autocast_enabled("cpu")
            or input.dtype != torch.float32
            or not weight.is_cpu
            or _version(weight) != self.packed_version
        ):
            return F.linear(input, weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(input, self.packed, self.bias, "none", [], "")

    def __getstate__(self) -> dict[str, Any]:  # the packed layout can be neither copied nor pickled
        return {name: value for name, value in self.__dict__.items() if not name.startswith("packed")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__class__ = nn.Linear  # type: ignore[assignment]


def _version(weight: Tensor) -> int:
    return 0 if weight.is_inference() else weight._version


def pack_linears(base: nn.Module, most_bytes: int = _MOST_BYTES) -> int:
    """Give every `nn.Linear` of a float32 model on a CPU its packed weight, where oneDNN is there and memory allows.

    Returns:
        How many were packed; 0 where nothing was done.
    """
    linears = [module for module in base.modules() if type(module) is nn.Linear]
    size = sum(module.weight.numel() * module.weight.element_size() for module in linears)
    fits = all(module.weight.device.type == "cpu" and module.weight.dtype == torch.float32 for module in linears)
    if not linears or not fits or size > most_bytes or not _available():
        return 0
    layer: Any
    for layer in linears:
        packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), _ROWS_HINT)
        layer.__class__ = PackedLinear
        layer.packed, layer.packed_version = packed, _version(layer.weight)
    return len(linears)


@cache
def _available() -> bool:
    """Whether torch has the packed kernel, and it agrees with the ordinary one."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    weight, rows = torch.randn(24, 16, generator=generator), torch.randn(3, 16, generator=generator)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        return _agrees(weight, rows)


def _agrees(weight: Tensor, rows: Tensor) -> bool:
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS_HINT)
        output = torch.ops.mkldnn._linear_pointwise(rows, packed, None, "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.allclose(output, F.linear(rows, weight), atol=1e-4)
