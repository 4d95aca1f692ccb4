"""Which models are supported, and that what is not is refused rather than decoded wrongly."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
import transformers as tf

import selfdraft_viz as sv
from selfdraft_viz.layered import FAMILIES, Family, LayeredModel
from selfdraft_viz.layered.families import sliding_windows


def test_every_supported_family_is_tested() -> None:
    """Breaks when a family is called supported that no test decodes with."""
    tested = {tiny.base(family).config.model_type for family in tiny.FAMILIES}
    assert tested == set(FAMILIES)


def test_small_models_have_the_features_that_they_stand_for() -> None:
    """Breaks when a configuration field is renamed, and a sliding window, soft cap or tied embedding is no longer
    tested."""
    model = {family: tiny.load(family).layered for family in tiny.FAMILIES}
    for family in ("mistral sliding", "phi3 sliding"):
        assert set(model[family].windows) == {tiny.WINDOW}
    for family in ("qwen2 sliding", "gemma2", "gemma3 text", "gemma3 conditional"):
        assert set(model[family].windows) == {tiny.WINDOW, None}
    assert {family for family in model if model[family].softcap} == {"gemma2", "gemma3 text capped"}
    assert model["gemma2"].config.attn_logit_softcapping == 2.0
    assert model["smollm3"].config.no_rope_layers == [1, 1, 0, 1, 1, 0]
    assert model["gemma3 conditional"].config.model_type == "gemma3_text"
    assert model["gemma3 conditional"].base.config.model_type == "gemma3"
    for family in ("llama tied, one key-value head", "qwen2", "qwen3", "gemma2", "gpt2"):
        embedding = model[family].base.get_input_embeddings().weight
        assert embedding.data_ptr() == model[family].unembedding.weight.data_ptr()
    assert model["llama"].unembedding.weight.data_ptr() != model["llama"].base.get_input_embeddings().weight.data_ptr()
    assert model["llama tied, one key-value head"].config.num_key_value_heads == 1
    assert model["qwen2"].layers[0].self_attn.q_proj.bias is not None
    assert model["gpt_neox"].config.use_parallel_residual
    assert not model["gpt_neox serial"].config.use_parallel_residual


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["llama", "mistral sliding", "gemma3 text", "gpt2", "gpt_neox", "phi3 sliding"])
def test_both_attention_implementations_decode_alike(family: str, implementation: str) -> None:
    """Breaks when a mask means another thing to another attention implementation."""
    base = copy.deepcopy(tiny.base(family))
    base.set_attn_implementation(implementation)
    model = sv.load(base, exit_layers=[1, 2])
    prompt = [4, 9, 1]
    theirs = tiny.transformers_greedy(tiny.load(family), prompt, 20)
    ours = model.generate(prompt, sv.Settings(threshold=0.2), max_new_tokens=20).token_ids
    tiny.assert_same_text(model, prompt, ours, theirs)


def test_soft_capped_attention_runs_eagerly() -> None:
    """Breaks when Gemma 2's attention runs through a kernel that has no soft-capping."""
    base = copy.deepcopy(tiny.base("gemma2"))
    base.config._attn_implementation = "sdpa"
    assert LayeredModel(base).config._attn_implementation == "eager"


class _IgnoresTheCache(Family):
    """GPT-NeoX called as the other families are: its layers take no `past_key_values`."""

    decoder, layers = FAMILIES["gpt_neox"].decoder, FAMILIES["gpt_neox"].layers
    norm, embed = FAMILIES["gpt_neox"].norm, FAMILIES["gpt_neox"].embed


def test_a_layer_that_does_not_use_its_cache_is_noticed() -> None:
    """Breaks when a cache passed under a wrong name vanishes in keyword arguments, and every row sees itself alone."""
    model = LayeredModel(tiny.base("gpt_neox"))
    model.family = _IgnoresTheCache()
    staircase = model.open(8)
    staircase.push([1, 2])
    with pytest.raises(RuntimeError, match="layer 1 did not use the cache"):
        staircase.advance(1)


def test_attention_that_takes_no_mask_is_refused() -> None:
    """Breaks when a kernel that ignores the mask lets rows see what they must not."""
    base = copy.deepcopy(tiny.base("llama"))
    base.config._attn_implementation = "flash_attention_2"
    with pytest.raises(sv.UnsupportedModelError, match=r"'flash_attention_2'.*attn_implementation='sdpa' or 'eager'"):
        LayeredModel(base)


def test_models_that_are_no_left_to_right_decoders_are_refused() -> None:
    """Breaks when a model that looks ahead, or at an encoder, is decoded as if it did not."""
    base = copy.deepcopy(tiny.base("gemma3 text"))
    base.config.use_bidirectional_attention = True
    with pytest.raises(sv.UnsupportedModelError, match="attends to later tokens"):
        LayeredModel(base)
    base = copy.deepcopy(tiny.base("gpt2"))
    base.config.add_cross_attention = True
    with pytest.raises(sv.UnsupportedModelError, match="attends to an encoder"):
        LayeredModel(base)


def test_layer_types_that_nobody_tried_are_refused() -> None:
    """Breaks when chunked or linear attention is run as full attention."""
    config = tf.Qwen3Config(num_hidden_layers=2, layer_types=["full_attention", "full_attention"])
    config.layer_types = ["full_attention", "chunked_attention"]
    with pytest.raises(sv.UnsupportedModelError, match="chunked_attention; supported are full_attention and sliding"):
        sliding_windows(config, 2)


def test_a_model_of_one_layer_is_refused() -> None:
    """Breaks when a model without room for an exit fails somewhere else."""
    config = tf.LlamaConfig(
        hidden_size=16, intermediate_size=16, num_attention_heads=2, num_hidden_layers=1, vocab_size=16
    )
    with pytest.raises(sv.UnsupportedModelError, match="1 layer: an exit needs at least 2"):
        LayeredModel(tf.LlamaForCausalLM(config))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_shape_of_a_model_is_known(family: str) -> None:
    """Breaks when a family's configuration names its width, depth, vocabulary or context otherwise."""
    model = tiny.load(family).layered
    assert (model.width, model.vocab_size, model.context_length) == (tiny.WIDTH, tiny.VOCABULARY, tiny.CONTEXT)
    assert model.num_layers == len(model.windows) == len(model.layer_types) == len(model.layers)
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float64)
