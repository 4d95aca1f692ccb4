"""The state of one decode: keys, values and hidden states, layer by layer.

What has been computed at a layer is always a prefix of the positions, and the prefixes get shorter as layers get
deeper:

    layer 4  ########            8 rows
    layer 3  ########            8 rows
    layer 2  ###########        11 rows
    layer 1  ############       12 rows
    position 0 ...      11

so one length a layer says everything. `advance` carries every row that is behind up to a layer, each from where it
stopped: drafting, catch-up and verification are all that one operation. `truncate` throws rows away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from selfdraft_viz.layered.families import Rope

if TYPE_CHECKING:
    from selfdraft_viz.layered.model import LayeredModel

_MASK_ROWS = 32  # passes of more rows than this get a mask of their own


@dataclass(frozen=True, slots=True)
class LayerRun:
    """Layers `first_layer`..`last_layer` ran once each over positions `first_position`..`stop_position - 1`."""

    first_layer: int
    last_layer: int
    first_position: int
    stop_position: int

    @property
    def layer_passes(self) -> int:
        return self.last_layer - self.first_layer + 1

    @property
    def rows(self) -> int:
        return self.stop_position - self.first_position


class _Tables(NamedTuple):
    """What the passes on one device read: positions, rotary tables by layer type, masks by window."""

    positions: Tensor
    ropes: dict[str, Rope]
    strips: dict[int | None, Tensor]


class Staircase:
    """Sole owner of the caches of one decode. Everything is allocated once, for `capacity` rows.

    Keys and values of a layer are (1, key-value heads, capacity, head width), written in place and handed to the layer
    as views. The hidden state kept for a position, one row of (capacity, width), is the one at its current depth.
    """

    def __init__(self, model: LayeredModel, capacity: int) -> None:
        self._model = model
        self._capacity = capacity
        self._lengths = [0] * (model.num_layers + 1)  # [0] counts embedded rows
        self._allocate()

    @torch.inference_mode()
    def _allocate(self) -> None:
        model, capacity = self._model, self._capacity
        self._keys: list[Tensor | None] = [None] * model.num_layers
        self._values: list[Tensor | None] = [None] * model.num_layers
        self._span = (0, 0)  # the rows of the pass that is running
        like = torch.empty(0, device=model.device, dtype=model.dtype)
        self._hidden = like.new_empty((capacity, model.width))
        self._positions = torch.arange(capacity, device=like.device)[None]
        self._tables = {device: self._tables_on(device) for device in {like.device, *model.layer_devices}}

    def _tables_on(self, device: torch.device) -> _Tables:
        model, capacity = self._model, self._capacity
        like = torch.empty(0, device=device, dtype=model.dtype)
        positions = self._positions.to(device)
        ropes: dict[str, Rope] = {}
        for layer_type in set(model.layer_types):
            tables = model.family.rope(model.decoder, like, positions, layer_type)
            ropes[layer_type] = tables and (tables[0].to(device), tables[1].to(device))
        strips = {window: _mask_strip(like, window, capacity) for window in set(model.windows)}
        return _Tables(positions, ropes, strips)

    @property
    def rows(self) -> int:
        """How many positions have been pushed."""
        return self._lengths[0]

    def depth(self, position: int) -> int:
        """How many layers the row at `position` has been through."""
        return sum(position < length for length in self._lengths) - 1

    def length(self, layer: int) -> int:
        """How many rows have been through `layer` (0 = embedded)."""
        return self._lengths[layer]

    def push(self, token_ids: list[int]) -> None:
        """Append tokens as new rows at depth 0."""
        start, stop = self.rows, self.rows + len(token_ids)
        if stop > self._capacity:
            raise IndexError(f"{stop} rows do not fit into a staircase of {self._capacity}")
        self._embed(token_ids, start, stop)
        self._lengths[0] = stop

    @torch.inference_mode()
    def _embed(self, token_ids: list[int], start: int, stop: int) -> None:
        ids = torch.tensor([token_ids], device=self._hidden.device)
        self._hidden[start:stop] = self._model.family.embed(self._model.decoder, ids, self._positions[:, start:stop])[0]

    def advance(self, to_layer: int) -> list[LayerRun]:
        """Carry every row that is behind up through `to_layer`; consecutive layers over the same rows are one run."""
        runs = []
        layer, stop = 1, self.rows
        while layer <= to_layer:
            start = self._lengths[layer]
            last = layer
            while last < to_layer and self._lengths[last + 1] == start:
                last += 1
            if start < stop:
                self._run(layer, last, start, stop)
                runs.append(LayerRun(layer, last, start, stop))
            layer = last + 1
        return runs

    def hidden_states(self, start: int, stop: int) -> Tensor:
        """(stop - start, width): the rows' hidden states, each at its current depth. A view: read it at once."""
        return self._hidden[start:stop]

    @torch.inference_mode()
    def logits(self, start: int, stop: int) -> Tensor:
        """(stop - start, vocabulary): the model's own output for rows that have been through every layer."""
        return self._model.unembed(self._model.norm(self._hidden[start:stop]))

    def truncate(self, rows: int) -> None:
        """Forget every row from `rows` on, at every layer."""
        self._lengths = [min(length, rows) for length in self._lengths]

    def update(self, keys: Tensor, values: Tensor, layer_index: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Called by a layer's attention, as on a transformers `Cache`: store the pass's rows, return all rows so
        far."""
        start, stop = self._span
        stored_keys, stored_values = self._keys[layer_index], self._values[layer_index]
        if stored_keys is None or stored_values is None:
            stored_keys = keys.new_empty((*keys.shape[:2], self._capacity, keys.shape[3]))
            stored_values = values.new_empty((*values.shape[:2], self._capacity, values.shape[3]))
            self._keys[layer_index], self._values[layer_index] = stored_keys, stored_values
        stored_keys[:, :, start:stop] = keys
        stored_values[:, :, start:stop] = values
        self._lengths[layer_index + 1] = stop
        return stored_keys[:, :, :stop], stored_values[:, :, :stop]

    @torch.inference_mode()
    def _run(self, first_layer: int, last_layer: int, start: int, stop: int) -> None:
        model, family = self._model, self._model.family
        self._span = (start, stop)
        hidden_states = self._hidden[None, start:stop]  # (1, rows, width)
        device = None
        for index in range(first_layer - 1, last_layer):
            if model.layer_devices[index] != device:
                device = model.layer_devices[index]
                hidden_states = hidden_states.to(device)
                positions, ropes, masks = self._cut(self._tables[device], start, stop)
            hidden_states = family.call(
                model.layers[index],
                hidden_states,
                masks[model.windows[index]],
                positions,
                ropes[model.layer_types[index]],
                self,
            )
            if self._lengths[index + 1] != stop:
                raise RuntimeError(f"layer {index + 1} did not use the cache it was given")
        self._hidden[start:stop] = hidden_states[0]

    def _cut(self, tables: _Tables, start: int, stop: int) -> tuple[Tensor, dict[str, Rope], dict[int | None, Tensor]]:
        """Positions, rotary tables and masks of a pass over rows `start`..`stop - 1`."""
        ropes = {
            layer_type: rope and (rope[0][:, start:stop], rope[1][:, start:stop])
            for layer_type, rope in tables.ropes.items()
        }
        masks = {window: self._mask(tables, window, start, stop) for window in tables.strips}
        return tables.positions[:, start:stop], ropes, masks

    def _mask(self, tables: _Tables, window: int | None, start: int, stop: int) -> Tensor:
        """(1, 1, rows, keys) additive: 0 where row start + r may attend to key k, -inf elsewhere."""
        rows = stop - start
        strip = tables.strips[window]
        if rows <= _MASK_ROWS:
            first = self._capacity - start
            return strip[:, :, :rows, first : first + stop]
        return additive_mask(strip, window, tables.positions[0, start:stop], tables.positions[0, :stop])


def _mask_strip(like: Tensor, window: int | None, capacity: int) -> Tensor:
    """A mask by relative position, so that the mask of any small pass is a slice of it: no work a token."""
    rows = torch.arange(_MASK_ROWS, device=like.device) + capacity
    keys = torch.arange(capacity + _MASK_ROWS, device=like.device)
    return additive_mask(like, window, rows, keys)


def additive_mask(like: Tensor, window: int | None, rows: Tensor, keys: Tensor) -> Tensor:
    """(1, 1, rows, keys) in the dtype of `like`: 0 where the row at position `rows[r]` may attend to the key at
    `keys[k]` (not after it, and less than `window` behind it), -inf elsewhere."""
    behind = rows[:, None] - keys[None, :]
    visible = behind >= 0 if window is None else (behind >= 0) & (behind < window)
    return torch.zeros_like(visible, dtype=like.dtype).masked_fill_(~visible, float("-inf"))[None, None]
