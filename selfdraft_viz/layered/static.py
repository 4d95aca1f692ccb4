"""Passes of one fixed shape: the same kernels for every row, and on CUDA a graph for every segment of layers.

A pass always has `rows` rows and all keys that there is room for, with a mask. The row at position p always stands in
place p mod `rows`, whether it is drafted, caught up, verified or decoded ordinarily, and whatever stands beside it: so
it goes through the same arithmetic, and its results are the same to the last bit (in bfloat16, too). Fixed shapes are
also what a CUDA graph needs: the layers between two exits are one graph, which is captured when they have run a few
times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from selfdraft_viz.layered.families import Rope
from selfdraft_viz.layered.staircase import Staircase, additive_mask

if TYPE_CHECKING:
    from selfdraft_viz.layered.model import LayeredModel

ROWS = 16
"""Rows of a pass, unless another number is asked for; more pending rows go up in several passes."""

_ROUND_UP = 128  # capacities are multiples of this, so that decodes can use each other's buffers and graphs


class Graphed:
    """A function of no arguments that reads and writes tensors that stay where they are. On CUDA it is captured as a
    graph once it has run a few times, and then replayed; elsewhere it is called.

    Args:
        function: returns what it made (tensors that the graph writes anew each time), or None.
        device: where it runs.
    """

    _WARM_UP = 3

    def __init__(self, function: Callable[[], Any], device: torch.device) -> None:
        self._function = function
        self._captures = device.type == "cuda"
        self._calls = 0
        self._graph: Any = None
        self._made: Any = None

    def __call__(self) -> Any:
        if not self._captures:
            return self._function()
        if self._graph is None:
            self._calls += 1
            if self._calls <= self._WARM_UP:
                return self._function()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._made = self._function()
        self._graph.replay()
        return self._made


class StaticBuffers:
    """The tensors that fixed-shape passes read and write, and the graphs over them. One decode uses them at a time;
    then they go back to the model for the next one.

    Attributes:
        span: (2,) int64, the positions of a pass: its start and its stop. All that the host writes for a pass.
        hidden_states: (capacity + rows, width), each position's at its current depth. Here and in the caches, the last
            `rows` places take what the places of a pass that stand for no position write.
        keys, values: by layer (1, key-value heads, capacity + rows, head width).
    """

    def __init__(self, model: LayeredModel, capacity: int, rows: int) -> None:
        self.model, self.capacity, self.rows = model, capacity, rows
        like = torch.empty(0, device=model.device, dtype=model.dtype)
        self.device = like.device
        self.span = torch.zeros(2, device=self.device, dtype=torch.int64)
        self.hidden_states = like.new_zeros((capacity + rows, model.width))
        self.positions = torch.arange(capacity + rows, device=self.device)[None]
        self._slots = self.positions[0, :rows].clone()
        self._ropes = {
            layer_type: model.family.rope(model.decoder, like, self.positions[:, :capacity], layer_type)
            for layer_type in set(model.layer_types)
        }
        self._places = self._slots + capacity
        self.keys: list[Tensor | None] = [None] * model.num_layers
        self.values: list[Tensor | None] = [None] * model.num_layers
        self._graphs: dict[object, Graphed] = {}

    def clear(self) -> None:
        """Zeros for what the last decode left: a NaN behind a mask would still be one."""
        for tensor in [self.hidden_states, *self.keys, *self.values]:
            if tensor is not None:
                tensor.zero_()

    def run(self, first_layer: int, last_layer: int, start: int, stop: int) -> None:
        """Positions `start`..`stop - 1`, at most `rows` of them, through layers `first_layer`..`last_layer`."""
        self._stand(start, stop)
        self._graph((first_layer, last_layer), lambda: self._segment(first_layer, last_layer))()

    def unembed(self, start: int, stop: int) -> Tensor:
        """(stop - start, vocabulary) logits of at most `rows` positions that have been through the last layer. Read
        them before the next call."""
        self._stand(start, stop)
        logits = self._graph("unembed", self._unembed)()
        first, last = start % self.rows, (stop - 1) % self.rows
        return logits[first : last + 1] if first <= last else torch.cat([logits[first:], logits[: last + 1]])

    def update(self, keys: Tensor, values: Tensor, layer_index: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Called by a layer's attention, as on a transformers `Cache`: store the pass's rows, return every place."""
        stored_keys, stored_values = self.keys[layer_index], self.values[layer_index]
        if stored_keys is None or stored_values is None:
            size = self.capacity + self.rows
            stored_keys = keys.new_zeros((*keys.shape[:2], size, keys.shape[3]))
            stored_values = values.new_zeros((*values.shape[:2], size, values.shape[3]))
            self.keys[layer_index], self.values[layer_index] = stored_keys, stored_values
        stored_keys.index_copy_(2, self._places, keys)
        stored_values.index_copy_(2, self._places, values)
        self._updated = layer_index
        return stored_keys, stored_values

    def _graph(self, key: object, function: Callable[[], Any]) -> Graphed:
        if key not in self._graphs:
            self._graphs[key] = Graphed(function, self.device)
        return self._graphs[key]

    def _stand(self, start: int, stop: int) -> None:
        self.span[0].fill_(start)
        self.span[1].fill_(stop)

    def _standing(self) -> Tensor:
        """(rows,) the position that stands in each place of the pass: p in place p mod rows. One from `stop` on stands
        for none."""
        start = self.span[0]
        return start + (self._slots - start) % self.rows

    def _segment(self, first_layer: int, last_layer: int) -> None:
        model = self.model
        positions = self._standing()
        stands = positions < self.span[1]
        self._places = torch.where(stands, positions, self._slots + self.capacity)
        positions = torch.where(stands, positions, 0)
        ropes: dict[str, Rope] = {
            layer_type: tables and (tables[0][:, positions], tables[1][:, positions])
            for layer_type, tables in self._ropes.items()
        }
        masks = {window: self._mask(window, positions) for window in set(model.windows)}
        hidden_states = self.hidden_states[self._places][None]  # (1, rows, width)
        for index in range(first_layer - 1, last_layer):
            self._updated = -1
            hidden_states = model.family.call(
                model.layers[index],
                hidden_states,
                masks[model.windows[index]],
                positions[None],
                ropes[model.layer_types[index]],
                self,
            )
            if self._updated != index:
                raise RuntimeError(f"layer {index + 1} did not use the cache it was given")
        self.hidden_states.index_copy_(0, self._places, hidden_states[0])

    def _mask(self, window: int | None, positions: Tensor) -> Tensor:
        """(1, 1, rows, capacity + rows) additive. Nobody sees the places past the capacity."""
        keys = self.positions[0].masked_fill(self.positions[0] >= self.capacity, 2 * self.capacity)
        return additive_mask(self.hidden_states, window, positions, keys)

    def _unembed(self) -> Tensor:
        standing = self._standing().clamp(max=self.capacity - 1)
        return self.model.unembed(self.model.norm(self.hidden_states[standing]))


class StaticStaircase(Staircase):
    """A staircase whose passes have `rows` rows, however few are pending."""

    def __init__(self, model: LayeredModel, capacity: int, rows: int = ROWS) -> None:
        self._pass_rows = rows
        super().__init__(model, capacity)

    @torch.inference_mode()
    def _allocate(self) -> None:
        idle = self._model.idle_buffers
        wanted = -(-self._capacity // _ROUND_UP) * _ROUND_UP
        if self._model.rope_switch is not None or wanted > self._model.context_length:
            wanted = self._capacity  # rotary tables that depend on the longest position; learned positions that end
        fits = [one for one in idle if (one.capacity, one.rows) == (wanted, self._pass_rows)]
        self._buffers = fits[0] if fits else StaticBuffers(self._model, wanted, self._pass_rows)
        if fits:
            idle.remove(self._buffers)
            self._buffers.clear()
        self._hidden = self._buffers.hidden_states
        self._positions = self._buffers.positions

    def __del__(self) -> None:
        buffers = getattr(self, "_buffers", None)
        if buffers is not None:  # one set is kept, not one for every decode that ever was open
            self._model.idle_buffers[:] = [buffers]

    @torch.inference_mode()
    def _run(self, first_layer: int, last_layer: int, start: int, stop: int) -> None:
        for piece in range(start, stop, self._pass_rows):
            self._buffers.run(first_layer, last_layer, piece, min(piece + self._pass_rows, stop))
        self._lengths[first_layer : last_layer + 1] = [stop] * (last_layer - first_layer + 1)

    @torch.inference_mode()
    def logits(self, start: int, stop: int) -> Tensor:
        ends = [(piece, min(piece + self._pass_rows, stop)) for piece in range(start, stop, self._pass_rows)]
        if len(ends) == 1:
            return self._buffers.unembed(*ends[0])
        return torch.cat([self._buffers.unembed(*one).clone() for one in ends])


class ExitGraph:
    """An exit check as one graph: the row and its exit temperature in, the decision's numbers out.

    Args:
        read: (1, width) hidden states and a () temperature -> tensors.
        like: (1, width), of the device and dtype of the hidden states.
    """

    def __init__(self, read: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], like: Tensor) -> None:
        self._hidden = torch.zeros_like(like)
        self._temperature = torch.ones((), device=like.device, dtype=torch.float64)
        self._graphed = Graphed(lambda: read(self._hidden, self._temperature), like.device)

    def __call__(self, hidden_states: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        self._hidden.copy_(hidden_states)
        self._temperature.fill_(temperature)
        return self._graphed()
