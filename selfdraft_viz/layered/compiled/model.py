"""Whether a model can run through the compiled kernels, and its weights in their layout."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from selfdraft_viz.layered.compiled.kernels import LayerWeights
    from selfdraft_viz.layered.model import LayeredModel

_FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
_MOST_BYTES = 4 * 2**30  # larger models are not copied
_lock = threading.RLock()  # one of numba's threading layers cannot be entered twice at once
Array = np.ndarray[Any, Any]


def reason_against(model: LayeredModel) -> str | None:
    """Why `model` cannot run through the compiled kernels; None if it can."""
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed (pip install numba)"
    kind = model.config.model_type
    if kind not in _FAMILIES:
        return f"there are compiled kernels for {', '.join(_FAMILIES)}, not for {kind}"
    if {(parameter.device.type, parameter.dtype) for parameter in model.base.parameters()} != {("cpu", torch.float32)}:
        return "the compiled kernels compute in float32 on a CPU"
    if model.config.hidden_act != "silu" or model.softcap is not None or model.unembedding.bias is not None:
        return "the model has another activation, soft-capped logits or a biased LM head"
    layer = model.layers[0]
    if getattr(layer.mlp.down_proj, "bias", None) is not None:
        return "the model's MLPs have biases"
    probe = model.family.rope(model.decoder, model.unembedding.weight[:0], torch.zeros((1, 1), dtype=torch.int64), "")
    if probe is None or probe[0].shape[-1] != layer.self_attn.head_dim:
        return "the model's rotary embedding turns a part of each head only"
    if sum(parameter.numel() * 4 for parameter in model.base.parameters()) > _MOST_BYTES:
        return f"a copy of the weights would take more than {_MOST_BYTES >> 30} GiB"
    return None


@dataclass(frozen=True, slots=True)
class CompiledHead:
    """One exit head: the weights of its translator, in the order that they are multiplied with, and its bias; and the
    unembedding of the tokens it can draft."""

    translator: tuple[Array, ...]
    bias: Array | None
    unembedding: Array
    columns: int


class Heads(Protocol):
    """What is laid out of a model's exit heads; see `selfdraft_viz.heads.ExitHeads`."""

    translators: Any
    vocabulary: Tensor | None


class CompiledModel:
    """A second copy of a model's weights, as the compiled kernels read them. A float32 number whose lower half is zero,
    as all are in a model saved in bfloat16, is kept as its upper half: half the bytes, the same number.

    Attributes:
        layers: see `LayerWeights`. unembedding: (blocks, width, BLOCK). norm: (width,).
        rotates: (L,) whether a layer turns its queries and keys.
    """

    def __init__(self, model: LayeredModel) -> None:
        _settle_threads()
        from selfdraft_viz.layered.compiled.kernels import LayerWeights

        layers: Any = model.layers
        attention = layers[0].self_attn
        self.head_width: int = attention.head_dim
        self.kv_heads: int = attention.k_proj.out_features // self.head_width
        self.scaling = np.float32(attention.scaling)
        self.epsilon = np.float32(model.config.rms_norm_eps)
        self.columns = model.vocab_size
        self.layers: LayerWeights = LayerWeights(
            attention_norm=_stack([layer.input_layernorm.weight for layer in layers]),
            qkv=_blocks([_joined(layer.self_attn, ("q_proj", "k_proj", "v_proj")) for layer in layers]),
            qkv_bias=_stack([_biases(layer.self_attn, ("q_proj", "k_proj", "v_proj")) for layer in layers]),
            query_norm=_stack([_head_norm(layer.self_attn, "q_norm") for layer in layers]),
            key_norm=_stack([_head_norm(layer.self_attn, "k_norm") for layer in layers]),
            output=_blocks([layer.self_attn.o_proj.weight for layer in layers]),
            output_bias=_stack([_biases(layer.self_attn, ("o_proj",)) for layer in layers]),
            mlp_norm=_stack([layer.post_attention_layernorm.weight for layer in layers]),
            gate_up=_blocks([_paired(layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight) for layer in layers]),
            down=_blocks([layer.mlp.down_proj.weight for layer in layers]),
            windows=np.array([window or np.iinfo(np.int64).max for window in model.windows], np.int64),
        )
        self.rotates = np.array([bool(getattr(layer.self_attn, "use_rope", True)) for layer in layers])
        norm: Any = model.norm
        self.norm = _numpy(norm.weight)
        self.embedding: Any = model.base.get_input_embeddings()
        self.unembedding = _blocks([model.unembedding.weight])[0]
        self._model_parameters = [*model.base.parameters()]
        self._state = self._fingerprint()
        self._heads: WeakKeyDictionary[Heads, dict[int, CompiledHead]] = WeakKeyDictionary()
        self._rope: tuple[Array, Array] | None = None

    def up_to_date(self) -> bool:
        """Whether the model's parameters are still those that were laid out."""
        return self._fingerprint() == self._state

    def kernels_kept(self) -> bool:
        """Whether kernels compiled earlier lie in numba's cache."""
        from selfdraft_viz.layered.compiled.kernels import run_layers

        return any(Path(run_layers.stats.cache_path).glob("*run_layers*.nbi"))

    def rope(self, model: LayeredModel, capacity: int) -> tuple[Array, Array]:
        """(capacity, head width) cosines and sines; kept where they do not depend on the longest position."""
        if self._rope is None or len(self._rope[0]) < capacity or model.rope_switch is not None:
            positions = torch.arange(capacity)[None]
            tables = model.family.rope(model.decoder, model.unembedding.weight[:0], positions, model.layer_types[0])
            assert tables is not None
            cosines, sines = (_numpy(table[0]) for table in tables)
            self._rope = cosines, sines
        return self._rope

    def run(self, first_layer: int, last_layer: int, start: int, stop: int, *state: Array) -> None:
        """`kernels.run_layers` over `state`: hidden states, keys, values, cosines, sines."""
        from selfdraft_viz.layered.compiled.kernels import run_layers

        with _lock:
            _share_threads()
            run_layers(
                first_layer, last_layer, start, stop, *state, self.rotates, self.layers, self.scaling, self.epsilon
            )

    def logits(self, hidden: Array) -> Array:
        """(rows, width) hidden states after the last layer -> (rows, vocabulary) logits."""
        return self._unembed(hidden, self.unembedding, self.columns)

    def exit(self, head: CompiledHead, hidden: Array, temperature: float) -> tuple[Array, int, float, float]:
        """One exit head on one row, (1, width): its logits, best column, confidence at `temperature` and at 1."""
        from selfdraft_viz.layered.compiled.kernels import certainty, translate, translate_low_rank

        with _lock:
            _share_threads()
            if head.translator:
                last = head.translator[-1]
                translated = np.empty((len(hidden), last.shape[0] * last.shape[2]), np.float32)
                kernel = translate if len(head.translator) == 1 else translate_low_rank
                kernel(hidden, *head.translator, head.bias, translated)
                hidden = translated[:, : hidden.shape[1]]
            logits = self._unembed(hidden, head.unembedding, head.columns)
            return (logits, *certainty(logits[0], head.columns, temperature))

    def head(self, heads: Heads, layer: int) -> CompiledHead:
        """The exit head at `layer`, laid out when it is first asked for."""
        by_layer = self._heads.setdefault(heads, {})
        if layer not in by_layer:
            by_layer[layer] = self._lay_out(heads, layer, next(iter(by_layer.values()), None))
        return by_layer[layer]

    def _lay_out(self, heads: Heads, layer: int, other: CompiledHead | None) -> CompiledHead:
        translator: tuple[Array, ...] = ()
        bias = None
        if heads.translators is not None:
            weights = tuple(heads.translators[layer])[:-1]  # as they stand in the formula: the first is the outermost
            translator = tuple(_blocks([weight])[0] for weight in reversed(weights))
            bias = _numpy(heads.translators[layer][-1])
        if other is not None:
            return CompiledHead(translator, bias, other.unembedding, other.columns)
        if heads.vocabulary is None:
            return CompiledHead(translator, bias, self.unembedding, self.columns)
        rows = self.unembedding.transpose(0, 2, 1).reshape(-1, self.unembedding.shape[1])[heads.vocabulary.numpy()]
        return CompiledHead(translator, bias, _in_blocks(rows), len(rows))

    def _unembed(self, hidden: Array, unembedding: Array, columns: int) -> Array:
        from selfdraft_viz.layered.compiled.kernels import BLOCK, unembed

        logits = np.empty((len(hidden), len(unembedding) * BLOCK), np.float32)
        with _lock:
            _share_threads()
            unembed(hidden, self.norm, self.epsilon, unembedding, logits)
        return logits[:, :columns]

    def _fingerprint(self) -> list[tuple[int, int]]:
        return [
            (parameter.data_ptr(), 0 if parameter.is_inference() else parameter._version)
            for parameter in self._model_parameters
        ]


def _settle_threads() -> None:
    """As many of numba's threads as torch has, unless the user has told it otherwise."""
    if "numba" not in sys.modules:  # which reads it once
        os.environ.setdefault("NUMBA_NUM_THREADS", str(torch.get_num_threads()))


def _share_threads() -> None:
    """As many threads as torch has, of those that numba started with."""
    import numba

    started: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    wanted = min(torch.get_num_threads(), started)
    if numba.get_num_threads() != wanted:
        numba.set_num_threads(wanted)


def _numpy(tensor: Tensor) -> Array:
    return tensor.detach().contiguous().numpy()


def _stack(tensors: Sequence[Tensor]) -> Array:
    return np.stack([_numpy(tensor) for tensor in tensors])


def _blocks(weights: Sequence[Tensor]) -> Array:
    """(outputs, inputs) weights -> (how many, blocks, inputs, BLOCK), as uint16 where no number loses a bit by it."""
    whole = np.stack([_numpy(weight) for weight in weights]).view(np.uint32)
    exact = not np.any(whole & np.uint32(0xFFFF))
    numbers = (whole >> np.uint32(16)).astype(np.uint16) if exact else whole.view(np.float32)
    return np.stack([_in_blocks(one) for one in numbers])


def _in_blocks(weight: Array) -> Array:
    from selfdraft_viz.layered.compiled.tiles import BLOCK

    outputs, inputs = weight.shape
    padded = np.zeros((-(-outputs // BLOCK) * BLOCK, inputs), weight.dtype)
    padded[:outputs] = weight
    return np.ascontiguousarray(padded.reshape(-1, BLOCK, inputs).transpose(0, 2, 1))


def _paired(gate: Tensor, up: Tensor) -> Tensor:
    """Gates and ups, half a block of each in turn."""
    from selfdraft_viz.layered.compiled.tiles import BLOCK

    half = BLOCK // 2
    missing = -len(gate) % half
    gate, up = (nn.functional.pad(weight.detach(), (0, 0, 0, missing)) for weight in (gate, up))
    return torch.stack([gate.unflatten(0, (-1, half)), up.unflatten(0, (-1, half))], dim=1).flatten(0, 2)


def _joined(module: Any, names: Sequence[str]) -> Tensor:
    return torch.cat([getattr(module, name).weight.detach() for name in names])


def _biases(module: Any, names: Sequence[str]) -> Tensor:
    parts = [getattr(module, name) for name in names]
    return torch.cat(
        [part.weight.new_zeros(part.out_features) if part.bias is None else part.bias.detach() for part in parts]
    )


def _head_norm(attention: Any, name: str) -> Tensor:
    norm = getattr(attention, name, None)
    return torch.empty(0) if norm is None else norm.weight
