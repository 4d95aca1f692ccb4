"""Where each supported model family keeps its parts, and how one of its layers is called.

Families whose decoder layers share transformers' common signature go through one path; GPT-2 and GPT-NeoX are adapted.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from selfdraft_viz.errors import UnsupportedModelError

Rope = tuple[Tensor, Tensor] | None
"""Cosines and sines for the rows of a pass, each (1, rows, rotary dimensions); None where positions are embedded."""


class Family:
    """Decoder layers with transformers' common signature (Llama, Mistral, Qwen, Gemma, Phi-3, OLMo 2, SmolLM3)."""

    def decoder(self, base: Any) -> nn.Module:
        """The stack of layers inside the causal LM."""
        inner = base.model
        return getattr(inner, "language_model", inner)  # Gemma 3 as its hub checkpoints load it: text beside vision

    def layers(self, decoder: Any) -> nn.ModuleList:
        return decoder.layers

    def norm(self, decoder: Any) -> nn.Module:
        return decoder.norm

    def embed(self, decoder: Any, token_ids: Tensor, positions: Tensor) -> Tensor:
        """(1, rows) token ids at (1, rows) positions -> (1, rows, width)."""
        return decoder.embed_tokens(token_ids)

    def rope(self, decoder: Any, like: Tensor, positions: Tensor, layer_type: str) -> Rope:
        """Rotary tables for (1, rows) positions, in the dtype of `like`."""
        return decoder.rotary_emb(like, positions)

    def call(
        self, layer: Any, hidden_states: Tensor, mask: Tensor, positions: Tensor, rope: Rope, cache: Any
    ) -> Tensor:
        output = layer(
            hidden_states,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            position_embeddings=rope,
        )
        return output[0] if isinstance(output, tuple) else output


class _Gemma3(Family):
    """Rotary tables differ by layer type."""

    def rope(self, decoder: Any, like: Tensor, positions: Tensor, layer_type: str) -> Rope:
        return decoder.rotary_emb(like, positions, layer_type)


class _GPT2(Family):
    """Learned positions, added to the token embedding."""

    def decoder(self, base: Any) -> nn.Module:
        return base.transformer

    def layers(self, decoder: Any) -> nn.ModuleList:
        return decoder.h

    def norm(self, decoder: Any) -> nn.Module:
        return decoder.ln_f

    def embed(self, decoder: Any, token_ids: Tensor, positions: Tensor) -> Tensor:
        return decoder.wte(token_ids) + decoder.wpe(positions)

    def rope(self, decoder: Any, like: Tensor, positions: Tensor, layer_type: str) -> Rope:
        return None

    def call(
        self, layer: Any, hidden_states: Tensor, mask: Tensor, positions: Tensor, rope: Rope, cache: Any
    ) -> Tensor:
        output = layer(hidden_states, past_key_values=cache, attention_mask=mask, use_cache=True)
        return output[0] if isinstance(output, tuple) else output


class _GPTNeoX(Family):
    """The cache is called `layer_past`; under any other name it vanishes in the layer's keyword arguments."""

    def decoder(self, base: Any) -> nn.Module:
        return base.gpt_neox

    def norm(self, decoder: Any) -> nn.Module:
        return decoder.final_layer_norm

    def embed(self, decoder: Any, token_ids: Tensor, positions: Tensor) -> Tensor:
        return decoder.embed_in(token_ids)

    def call(
        self, layer: Any, hidden_states: Tensor, mask: Tensor, positions: Tensor, rope: Rope, cache: Any
    ) -> Tensor:
        output = layer(
            hidden_states,
            attention_mask=mask,
            position_ids=positions,
            layer_past=cache,
            use_cache=True,
            position_embeddings=rope,
        )
        return output[0] if isinstance(output, tuple) else output


_COMMON = Family()
FAMILIES: dict[str, Family] = {
    "llama": _COMMON,
    "mistral": _COMMON,
    "qwen2": _COMMON,
    "qwen3": _COMMON,
    "gemma2": _COMMON,
    "gemma3": _Gemma3(),
    "gemma3_text": _Gemma3(),
    "phi3": _COMMON,
    "olmo2": _COMMON,
    "smollm3": _COMMON,
    "gpt2": _GPT2(),
    "gpt_neox": _GPTNeoX(),
}
"""By `config.model_type`. Supported means tested: each decodes exactly as `transformers.generate` does."""


def family_of(model_type: str) -> Family:
    """The family of a `config.model_type`.

    Raises:
        UnsupportedModelError: it is not supported; the message lists what is.
    """
    if model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"models of type {model_type!r} cannot be run layer by layer here; supported are {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]


def rope_limit(config: Any) -> tuple[str, int] | None:
    """The position where a model's rotary frequencies switch, as (kind, position); None where they never do.

    "longrope" picks its frequencies by the longest position so far, "dynamic" rescales past the trained context. A
    decode that crossed the switch would mix rows of both kinds.
    """
    parameters = getattr(config, "rope_parameters", None) or {}
    by_type = [value for value in parameters.values() if isinstance(value, dict)] or [parameters]
    for one in by_type:
        kind = one.get("rope_type", "default")
        if kind == "longrope":
            original = one.get("original_max_position_embeddings") or config.original_max_position_embeddings
            return kind, int(original)
        if "dynamic" in kind:
            return kind, int(config.max_position_embeddings)
    return None


def sliding_windows(config: Any, num_layers: int) -> list[int | None]:
    """For each layer, how many positions back it attends to (itself counted), or None for all of them."""
    window = getattr(config, "sliding_window", None)
    layer_types = getattr(config, "layer_types", None)
    if layer_types is None:  # Mistral and Phi-3 slide in every layer and do not say so layer by layer
        slides = config.model_type in ("mistral", "phi3") and window is not None
        return [window if slides else None] * num_layers
    unknown = set(layer_types) - {"full_attention", "sliding_attention"}
    if unknown:
        raise UnsupportedModelError(
            f"the model has layers of type {', '.join(sorted(unknown))}; "
            "supported are full_attention and sliding_attention"
        )
    return [window if kind == "sliding_attention" else None for kind in layer_types]


def check_supported(base: Any, config: Any) -> None:
    """Refuse what would decode wrongly without a word.

    Raises:
        UnsupportedModelError: naming the feature.
    """
    if getattr(config, "use_bidirectional_attention", False):
        raise UnsupportedModelError("the model attends to later tokens too, so it cannot decode from left to right")
    if getattr(config, "add_cross_attention", False):
        raise UnsupportedModelError("the model attends to an encoder; only decoder-only models are supported")
    implementation = config._attn_implementation
    if implementation not in ("sdpa", "eager"):
        raise UnsupportedModelError(
            f"the attention implementation {implementation!r} takes no explicit mask: "
            "load the model with attn_implementation='sdpa' or 'eager'"
        )


def floating_dtype(base: Any) -> torch.dtype:
    return next(parameter.dtype for parameter in base.parameters() if parameter.is_floating_point())


def device_of(module: nn.Module) -> torch.device:
    """Where a module computes: where accelerate brings its parameters, if they lie elsewhere until they are needed."""
    for part in module.modules():
        hook: Any = getattr(part, "_hf_hook", None)
        for one in getattr(hook, "hooks", [hook]):
            if getattr(one, "execution_device", None) is not None:
                return torch.device(one.execution_device)
    return next(module.parameters()).device


def parameters_of(module: Any) -> dict[str, Tensor]:
    """A module's own parameters by name, from where accelerate keeps them if that is not the module itself."""
    hook = getattr(module, "_hf_hook", None)
    maps = [getattr(one, "weights_map", None) for one in getattr(hook, "hooks", [hook])]
    kept: Any = next((one for one in maps if one is not None), {})
    return {
        name: kept[name] if parameter.is_meta else parameter
        for name, parameter in module.named_parameters(recurse=False)
    }
