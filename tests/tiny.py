"""Small random models of every supported family, built from their configurations, for the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import transformers as tf

import selfdraft_viz as sv
from selfdraft_viz.heads import describe_base

torch.set_num_threads(1)  # of such small models more threads only slow each other down

VOCABULARY = 96
WIDTH = 32
CONTEXT = 64
WINDOW = 6  # sliding windows: shorter than most decodes


def _common(**changes: Any) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        **changes,
    }


def _llama(**changes: Any) -> tf.PreTrainedModel:
    return tf.LlamaForCausalLM(tf.LlamaConfig(**_common(**changes)))


def _rope(kind: str, **parameters: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": 10000.0, **parameters}


def _gemma3_text_config(**changes: Any) -> tf.Gemma3TextConfig:
    return tf.Gemma3TextConfig(
        **_common(
            num_hidden_layers=6,
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=WINDOW,
            layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
            tie_word_embeddings=True,
            **changes,
        )
    )


def _gemma3_conditional() -> tf.PreTrainedModel:
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = tf.Gemma3Config(
        text_config=_gemma3_text_config().to_dict(),
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_index=VOCABULARY - 1,
        boi_token_index=VOCABULARY - 2,
        eoi_token_index=VOCABULARY - 3,
        tie_word_embeddings=True,
    )
    return tf.Gemma3ForConditionalGeneration(config)


def phi3_longrope() -> tf.PreTrainedModel:
    """Its rotary frequencies switch at position 32, the middle of its context."""
    parameters = _rope(
        "longrope",
        short_factor=[1.0] * 4,
        long_factor=[2.0, 3.0, 4.0, 5.0],
        original_max_position_embeddings=CONTEXT // 2,
    )
    config = tf.Phi3Config(
        **_common(rope_parameters=parameters, original_max_position_embeddings=CONTEXT // 2, sliding_window=None)
    )
    return tf.Phi3ForCausalLM(config)


FAMILIES: dict[str, Callable[[], tf.PreTrainedModel]] = {
    "llama": _llama,
    "llama tied, one key-value head": lambda: _llama(num_key_value_heads=1, tie_word_embeddings=True, head_dim=16),
    "llama biased, rope llama3": lambda: _llama(
        attention_bias=True,
        mlp_bias=True,
        num_hidden_layers=4,
        rope_parameters=_rope(
            "llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16
        ),
    ),
    "llama, rope yarn": lambda: _llama(
        rope_parameters=_rope("yarn", factor=4.0, original_max_position_embeddings=CONTEXT // 4)
    ),
    "llama, rope dynamic": lambda: _llama(rope_parameters=_rope("dynamic", factor=2.0)),
    "mistral sliding": lambda: tf.MistralForCausalLM(tf.MistralConfig(**_common(sliding_window=WINDOW))),
    "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**_common(tie_word_embeddings=True))),
    "qwen2 sliding": lambda: tf.Qwen2ForCausalLM(
        tf.Qwen2Config(**_common(use_sliding_window=True, sliding_window=WINDOW, max_window_layers=2))
    ),
    "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**_common(head_dim=16, tie_word_embeddings=True))),
    "gemma2": lambda: tf.Gemma2ForCausalLM(
        tf.Gemma2Config(
            **_common(
                head_dim=8,
                query_pre_attn_scalar=8,
                sliding_window=WINDOW,
                attn_logit_softcapping=2.0,
                final_logit_softcapping=6.0,
                tie_word_embeddings=True,
            )
        )
    ),
    "gemma3 text": lambda: tf.Gemma3ForCausalLM(_gemma3_text_config()),
    "gemma3 text capped": lambda: tf.Gemma3ForCausalLM(_gemma3_text_config(final_logit_softcapping=6.0)),
    "gemma3 conditional": _gemma3_conditional,
    "phi3 sliding": lambda: tf.Phi3ForCausalLM(tf.Phi3Config(**_common(sliding_window=WINDOW))),
    "olmo2": lambda: tf.Olmo2ForCausalLM(tf.Olmo2Config(**_common())),
    "smollm3": lambda: tf.SmolLM3ForCausalLM(
        tf.SmolLM3Config(**_common(num_hidden_layers=6, no_rope_layers=[1, 1, 0, 1, 1, 0]))
    ),
    "gpt2": lambda: tf.GPT2LMHeadModel(
        tf.GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=WIDTH,
            n_layer=5,
            n_head=4,
            n_positions=CONTEXT,
            bos_token_id=None,
            eos_token_id=None,
        )
    ),
    "gpt_neox": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**_common(rotary_pct=0.25))),
    "gpt_neox serial": lambda: tf.GPTNeoXForCausalLM(
        tf.GPTNeoXConfig(**_common(rotary_pct=0.5, use_parallel_residual=False, attention_bias=False))
    ),
}
"""One small model of every family, and of every feature of a family that changes how it decodes."""


@cache
def base(family: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> tf.PreTrainedModel:
    """A random model. Shared between tests: change nothing in it."""
    return randomised(FAMILIES[family](), seed).to(dtype)


def randomised(model: tf.PreTrainedModel, seed: int) -> tf.PreTrainedModel:
    """Weights at a scale where the model says different things at different places, and where its shallow layers agree
    with its last one often, but not always."""
    generator = torch.Generator().manual_seed(seed)
    model.double()
    kind = model.config.get_text_config().model_type
    gemma = kind.startswith("gemma")
    normed_outputs = gemma or kind == "olmo2"  # a layer writes what its post-norms let through
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if any(part in name for part in ("embed", "wte", "wpe", "lm_head")):
                parameter.copy_(noise * (WIDTH**-0.5 if gemma else 1.0))
            elif parameter.dim() > 1:
                writes = any(part in name for part in ("o_proj", "down_proj", "c_proj", "dense.", "dense_4h_to_h"))
                parameter.copy_(
                    noise * (0.25 if writes else 1.0) * parameter.shape[0 if kind == "gpt2" else -1] ** -0.5
                )
            elif name.endswith("bias"):
                parameter.copy_(noise * 0.2)
            elif name.endswith(
                ("model.norm.weight", "language_model.norm.weight", "ln_f.weight", "final_layer_norm.weight")
            ):
                parameter.copy_(
                    4.0 * noise - 1.0 if gemma else noise
                )  # of either sign, or tied embeddings make each token repeat itself
            elif normed_outputs and "post_" in name:
                parameter.copy_(noise * 0.05 + (0.25 - 1.0 * gemma))  # Gemma's norms count from 1
            else:
                parameter.add_(noise * 0.1)
    model.generation_config.eos_token_id = None
    return model.eval()


def load(family: str, exit_layers: Sequence[int] | None = None, seed: int = 0) -> sv.Model:
    """A float64 model with logit-lens heads."""
    return sv.load(base(family, seed), exit_layers=exit_layers)


def with_random_heads(model: sv.Model, seed: int = 0, strength: float = 0.2, rank: int | None = None) -> sv.Model:
    """The same model with trained-looking heads: random translators near the identity, whole or of a low rank."""
    generator = torch.Generator().manual_seed(seed)
    width = model.layered.width

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=model.dtype)

    def translator() -> tuple[torch.Tensor, ...]:
        if rank is not None:
            return (
                strength * normal(width, rank) * rank**-0.5,
                normal(rank, width) * width**-0.5,
                strength * normal(width),
            )
        identity = torch.eye(width, dtype=model.dtype)
        return identity + strength * normal(width, width) * width**-0.5, strength * normal(width)

    translators = {layer: translator() for layer in model.exit_layers}
    return model.with_heads(
        sv.ExitHeads(model.exit_layers, translators, {"base": {"id": model.name, **describe_base(model.layered)}})
    )


@contextmanager
def ends_with(model: sv.Model, token_ids: Sequence[int]) -> Iterator[None]:
    """Within the block, each of `token_ids` ends a text of `model`."""
    configuration = model.base.generation_config
    before = configuration.eos_token_id
    configuration.eos_token_id = list(token_ids)
    try:
        yield
    finally:
        configuration.eos_token_id = before


def transformers_greedy(model: sv.Model, prompt: Sequence[int], max_new_tokens: int) -> list[int]:
    """The new tokens of `transformers.generate`, greedy, with the model's own end-of-sequence tokens."""
    ids = torch.tensor([list(prompt)])
    output = model.base.generate(
        ids,
        attention_mask=torch.ones_like(ids),  # or it takes a pad token in the prompt for padding
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=0,
    )
    return output[0, len(prompt) :].tolist()


@torch.no_grad()
def transformers_margin(model: sv.Model, token_ids: Sequence[int]) -> float:
    """By how much the best next token leads over the second best after `token_ids`."""
    ids = torch.tensor([list(token_ids)])
    logits = model.base(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1]
    best, second = logits.double().topk(2).values.tolist()
    return best - second


def assert_same_text(
    model: sv.Model, prompt: Sequence[int], ours: Sequence[int], theirs: Sequence[int], margin: float = 1e-6
) -> None:
    """Equal, or different from a near-tie on, with less than `margin` between the two best tokens: norms and rotary
    tables are in float32 even in a float64 model."""
    for index, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        if a != b:
            lead = transformers_margin(model, [*prompt, *theirs[:index]])
            assert lead < margin, f"token {index}: {a} against {b}, with a margin of {lead}; {ours} != {theirs}"
            return
    assert len(ours) == len(theirs)
