"""A causal LM taken apart into embedding, layers, final norm and unembedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from selfdraft_viz.errors import SettingsError, UnsupportedModelError
from selfdraft_viz.layered import families
from selfdraft_viz.layered.compiled import CompiledModel, CompiledStaircase, reason_against
from selfdraft_viz.layered.staircase import Staircase
from selfdraft_viz.layered.static import ROWS, ExitGraph, StaticBuffers, StaticStaircase

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LayeredModel:
    """One Hugging Face causal LM whose layers can be run one at a time. It holds no state of any decode.

    Args:
        base: a causal LM of a supported family (`FAMILIES`), in evaluation mode. Its parameters are never changed.

    Raises:
        UnsupportedModelError: of another family, or with a feature that would decode wrongly.
    """

    def __init__(self, base: PreTrainedModel) -> None:
        outer = base.config
        self.family = families.family_of(outer.model_type)
        self.config: Any = outer.get_text_config()
        self.base = base
        self.decoder = self.family.decoder(base)
        if getattr(self.config, "attn_logit_softcapping", None) and self.config._attn_implementation == "sdpa":
            base.set_attn_implementation("eager")  # transformers' sdpa path has no soft-capping
        families.check_supported(base, self.config)
        self.layers = self.family.layers(self.decoder)
        self.layer_devices = [families.device_of(layer) for layer in self.layers]
        self.num_layers: int = len(self.layers)
        if self.num_layers < 2:
            raise UnsupportedModelError(f"the model has {self.num_layers} layer: an exit needs at least 2")
        self.norm = self.family.norm(self.decoder)
        self.unembedding: nn.Linear = base.get_output_embeddings()
        self._device = families.device_of(self.norm)
        self.softcap: float | None = getattr(self.config, "final_logit_softcapping", None)
        self.width: int = self.config.hidden_size
        self.vocab_size: int = self.unembedding.weight.shape[0]
        self.context_length: int = self.config.max_position_embeddings
        self.windows = families.sliding_windows(self.config, self.num_layers)
        layer_types = getattr(self.config, "layer_types", None)
        self.layer_types: list[str] = list(layer_types or ["full_attention"] * self.num_layers)
        self.rope_switch = families.rope_limit(self.config)
        self.compiled: CompiledModel | None = None
        self.static_rows: int | None = None
        self.idle_buffers: list[StaticBuffers] = []
        self.exit_graphs: WeakKeyDictionary[Any, dict[int, ExitGraph]] = WeakKeyDictionary()  # by exit heads

    @property
    def device(self) -> torch.device:
        """Where hidden states rest, and logits come out: the final norm's, for a model that is spread over several."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        return families.floating_dtype(self.base)

    def open(self, capacity: int) -> Staircase:
        """An empty staircase with room for `capacity` rows: the state of one decode."""
        if self.compiled is not None and self.compiled.up_to_date():
            return CompiledStaircase(self, self.compiled, capacity)
        if self.static_rows is not None:
            return StaticStaircase(self, capacity, self.static_rows)
        return Staircase(self, capacity)

    def compile(self, required: bool = True) -> None:
        """Lay the weights out for the compiled kernels, through which decoding then runs.

        Raises:
            SettingsError: this model cannot run through them, and they are `required`; the message says why.
        """
        reason = reason_against(self)
        if reason is not None and not required:
            return
        if reason is not None:
            raise SettingsError(f"kernels='compiled': {reason}: use kernels='torch' or 'auto'")
        self.compiled = CompiledModel(self)

    def fix_shapes(self, rows: int = ROWS) -> None:
        """Run decodes in passes of `rows` rows and a fixed number of keys: see `selfdraft_viz.layered.static`.

        Raises:
            SettingsError: the model is spread over several devices.
        """
        if self.spread:
            raise SettingsError(
                "passes of a fixed shape need the whole model on one device: leave device_map out, "
                "or use kernels='torch' and bitwise=False"
            )
        if rows < 2:
            raise SettingsError(f"rows={rows}: use at least 2, as one row goes through kernels of its own")
        self.static_rows = rows

    def unembed(self, normed: Tensor) -> Tensor:
        """(rows, width) hidden states after the final norm -> (rows, vocabulary) logits."""
        return self.soft_capped(self.unembedding(normed)).to(normed.device)

    @property
    def spread(self) -> bool:
        """Whether accelerate keeps some of the model elsewhere than where it computes, or on several devices."""
        return len(set(self.layer_devices)) > 1 or any(parameter.is_meta for parameter in self.base.parameters())

    def soft_capped(self, logits: Tensor) -> Tensor:
        """Gemma 2's final soft-capping, where the model has it; exit heads get it too."""
        if self.softcap is None:
            return logits
        return torch.tanh(logits / self.softcap) * self.softcap
