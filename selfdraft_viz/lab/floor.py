"""How fast ordinary decoding could be: the weight bytes that a token reads, over the bandwidth at which they come.

A token's pass multiplies every weight with one row: two operations a number read, far fewer than a processor could do
in the time of the reading. Reading all weights once is therefore the floor of a token, unless the fixed cost of the
calls is above it, as for small models on a GPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from selfdraft_viz.model import Model


@dataclass(frozen=True)
class Floor:
    """Measured on one machine, for one model.

    Attributes:
        weight_bytes: read for one token by the kernels in use: all layers, the final norm and the LM head.
        bandwidth: bytes a second at which a block of as many bytes is read again and again (what fits into a cache
            comes from there, as it does in decoding).
        call_seconds: the fixed cost of one torch operation on one number.
        parts: seconds of the parts of an ordinary token: "embedding", "layers", "norm and LM head", "choosing".
    """

    weight_bytes: int
    bandwidth: float
    call_seconds: float
    parts: dict[str, float]

    @property
    def seconds(self) -> float:
        """The floor of a token."""
        return self.weight_bytes / self.bandwidth

    @property
    def token_seconds(self) -> float:
        """The parts of a token together."""
        return sum(self.parts.values())

    @property
    def distance(self) -> float:
        """How many floors a token takes; 1 is as fast as can be."""
        return self.token_seconds / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {**asdict(self), "seconds": self.seconds, "distance": self.distance}


def measure_floor(model: Model, *, context: int = 128, repeats: int = 40) -> Floor:
    """Time a read of as many bytes as a token's weights, and the parts of ordinary tokens after `context` tokens:
    medians of `repeats`."""
    from selfdraft_viz.noise import Greedy

    layered, device = model.layered, model.device
    size = weight_bytes(model)
    block = torch.ones(max(1, size // 4), device=device)
    one = torch.ones((), device=device)
    staircase = layered.open(context + 1)
    staircase.push([0] * context)
    staircase.advance(layered.num_layers)
    logits = staircase.logits(context - 1, context)

    def embed() -> None:
        staircase.truncate(context)
        staircase.push([0])

    parts: dict[str, Callable[[], object]] = {
        "read": lambda: block.sum(),
        "call": lambda: one + one,
        "embedding": embed,
        "layers": lambda: staircase.advance(layered.num_layers),
        "norm and LM head": lambda: staircase.logits(context, context + 1),
        "choosing": lambda: Greedy().choose(logits, context),
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    with torch.inference_mode():
        for name in ("read", "call"):
            times[name] = [_timed(parts[name], device) for _ in range(repeats + 5)][5:]
        for _ in range(repeats + 5):
            for name in ("embedding", "layers", "norm and LM head", "choosing"):
                times[name].append(_timed(parts[name], device))
    medians = {name: statistics.median(values[-repeats:]) for name, values in times.items()}
    read, call = medians.pop("read"), medians.pop("call")
    return Floor(size, block.numel() * 4 / read, call, medians)


def weight_bytes(model: Model) -> int:
    """The bytes of weights that one token of `model` reads, in the form in which the kernels in use hold them."""
    layered = model.layered
    compiled = layered.compiled
    if compiled is not None and compiled.up_to_date():
        arrays = [*compiled.layers, compiled.unembedding, compiled.norm]
        return sum(array.nbytes for array in arrays)
    modules = [layered.layers, layered.norm, layered.unembedding]
    parameters = {id(parameter): parameter for module in modules for parameter in module.parameters()}
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters.values())


def _timed(part: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    part()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
