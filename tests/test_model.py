"""Loading a model, asking it for a decode, and every way of asking wrongly."""

from __future__ import annotations

import copy
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers as tf
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import selfdraft_viz as sv
from selfdraft_viz.heads import HEADS_FILE, describe_base
from selfdraft_viz.layered import FAMILIES, LayeredModel
from selfdraft_viz.model import EMBEDDED, PRESET_FILE, embedded_folder

# --- loading ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small Llama as a checkpoint in Hugging Face form."""
    copy.deepcopy(tiny.base("llama")).to(torch.float32).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("family", ["llama", "gemma3 conditional", "gpt2", "gpt_neox", "phi3 sliding", "qwen2 sliding"])
def test_a_saved_model_decodes_as_transformers_does(family: str, tmp_path: Path) -> None:
    """Breaks when a folder loads as another class than transformers' own, Gemma 3 with its vision part among them."""
    tiny.base(family).save_pretrained(tmp_path)
    model = sv.load(tmp_path, dtype="float64", device="cpu", exit_layers=[1, 2])
    assert type(model.base) is type(tiny.base(family))
    assert model.tokenizer is None
    assert (model.device.type, model.dtype, model.name) == ("cpu", torch.float64, str(tmp_path))
    theirs = tiny.transformers_greedy(tiny.load(family), [5, 6, 7], 12)
    assert model.generate([5, 6, 7], sv.Settings(threshold=0.2), max_new_tokens=12).token_ids == theirs
    assert model.generate_plain([5, 6, 7], max_new_tokens=12).token_ids == theirs


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64", torch.bfloat16, None])
def test_a_model_loads_in_the_dtype_asked_for(folder: Path, dtype: Any) -> None:
    """Breaks when a dtype is ignored; without one a CPU gets float32."""
    model = sv.load(folder, dtype=dtype, device="cpu")
    assert str(model.dtype).removeprefix("torch.") == str(dtype or "float32").removeprefix("torch.")
    assert len(model.generate([1, 2], max_new_tokens=4).token_ids) == 4


def test_heads_and_preset_that_lie_beside_a_model_are_used(folder: Path) -> None:
    """Breaks when what ships with a model must be asked for."""
    bare = sv.load(folder, device="cpu")
    assert (bare.heads.kind, bare.preset) == ("logit lens", sv.Settings())
    trained = tiny.with_random_heads(sv.load(folder, device="cpu", exit_layers=[1, 3])).heads
    trained.save(folder)
    preset = sv.Settings(threshold=0.3, max_depth=3, schedule=sv.PerLayerTemperature({1: 2.0, 3: 1.5}))
    preset.save(folder / PRESET_FILE)
    model = sv.load(folder, device="cpu")
    assert (model.heads.kind, model.exit_layers, model.preset) == ("trained", (1, 3), preset)
    assert model.generate([1, 2], max_new_tokens=4).settings == preset
    assert sv.load(folder, device="cpu", heads="logit lens").heads.kind == "logit lens"
    elsewhere = sv.load(folder, device="cpu", heads="logit lens", exit_layers=[2])
    assert elsewhere.preset == sv.Settings(), "a preset for other exits gives way to the defaults"


def test_the_embedded_model_loads_without_a_name(embedded: sv.Model) -> None:
    """Breaks when what ships in the package is incomplete."""
    assert embedded.name == EMBEDDED
    assert embedded.num_layers > max(embedded.exit_layers)
    comparison = embedded.compare("Once upon a time", max_new_tokens=16)
    assert comparison.equal, str(comparison)
    assert "equal: all 16 new tokens" in str(comparison)
    assert len(comparison.plain.text) > 16


def test_wrong_folders_are_refused_in_words(tmp_path: Path) -> None:
    """Breaks when a typing error in a path is looked for on the hub, or gives a stack trace of transformers."""
    for wrong in (tmp_path, tmp_path / "none", "./none", "~/none"):
        with pytest.raises(sv.LoadError, match=r"no folder with a model .* no config\.json"):
            sv.load(wrong)
    with pytest.raises(sv.LoadError, match="the model 'nobody/nothing' cannot be read"):
        sv.load("nobody/nothing")  # offline


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"model_type": "llama", "num_hidden_layers": "many"}'])
def test_damaged_configurations_are_refused(folder: Path, text: str) -> None:
    """Breaks when damage comes out as an error of json's or transformers' own."""
    (folder / "config.json").write_text(text)
    with pytest.raises((sv.LoadError, sv.UnsupportedModelError)):
        sv.load(folder)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_truncated_weights_are_refused(folder: Path, share: float) -> None:
    """Breaks when half a download decodes."""
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: int(share * len(content))])
    with pytest.raises(sv.LoadError, match=r"weights of .* cannot be read \(missing, damaged, or not safetensors\)"):
        sv.load(folder)


def test_missing_weights_are_refused(folder: Path) -> None:
    """Breaks when transformers' random weights stand in for a tensor that is not there."""
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    removed = tensors.pop("model.layers.2.mlp.down_proj.weight")
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(sv.LoadError, match=r"incomplete: model\.layers\.2\..*weight is missing \(1 in all\)"):
        sv.load(folder)
    save_file({**tensors, "model.layers.2.mlp.down_proj.weight": removed[:-1]}, weights, metadata={"format": "pt"})
    with pytest.raises(sv.LoadError):
        sv.load(folder)
    weights.unlink()
    with pytest.raises(sv.LoadError, match="missing, damaged, or not safetensors"):
        sv.load(folder)


def test_pickled_weights_are_refused(folder: Path) -> None:
    """Breaks when a format that can run code is loaded."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(sv.LoadError):
        sv.load(folder)


def test_heads_of_another_model_beside_a_model_are_refused(folder: Path) -> None:
    """Breaks when a folder that was copied together decodes with the wrong heads."""
    tiny.with_random_heads(tiny.load("llama", seed=1)).heads.save(folder)
    with pytest.raises(sv.HeadsMismatchError, match="trained for another model"):
        sv.load(folder)
    (folder / HEADS_FILE).write_bytes(b"garbage")
    with pytest.raises(sv.LoadError, match="damaged"):
        sv.load(folder)
    with pytest.raises(sv.LoadError, match="no exit heads at"):
        sv.load(folder, heads=folder / "none")


@pytest.mark.parametrize(
    "config",
    [
        tf.BloomConfig(hidden_size=16, n_layer=2, n_head=2, vocab_size=32),
        tf.MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=32),
        tf.OPTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, vocab_size=32, ffn_dim=16),
    ],
    ids=lambda config: config.model_type,
)
def test_unknown_families_are_refused_with_a_list_of_the_known(config: tf.PreTrainedConfig, tmp_path: Path) -> None:
    """Breaks when a family that nobody tried decodes wrongly, or fails deep inside a layer."""
    words = rf"type '{config.model_type}' cannot be run layer by layer here; supported are llama, mistral.*gpt_neox"
    with pytest.raises(sv.UnsupportedModelError, match=words):
        LayeredModel(tf.AutoModelForCausalLM.from_config(config))
    config.save_pretrained(tmp_path)
    with pytest.raises(sv.UnsupportedModelError, match=words):
        sv.load(tmp_path)


def test_families_that_transformers_does_not_know_are_refused_alike(tmp_path: Path) -> None:
    """Breaks when a model with code of its own gives another error than an unsupported one."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "my_own", "auto_map": {"AutoConfig": "c.C"}}))
    with pytest.raises(sv.UnsupportedModelError, match=f"'my_own' .*{', '.join(FAMILIES)}"):
        sv.load(tmp_path)


def test_cuda_where_there_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a decode asked for on a GPU runs on the CPU, or the reverse, without a word."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # so that the test says the same on a GPU machine
    for device in ("cuda", "cuda:1"):
        for name in (None, tiny.base("llama")):
            with pytest.raises(sv.SettingsError, match=rf"device='{device}', but torch sees no CUDA .* device='cpu'"):
                sv.load(name, device=device)
    with pytest.raises(sv.SettingsError, match=r"device='gpu' is unknown: use 'auto', 'cpu', 'cuda' or 'cuda:N'"):
        sv.load(device="gpu")
    assert sv.load(tiny.base("llama")).device.type == "cpu"


@pytest.mark.parametrize("dtype", ["int8", "float8", 3, torch.int64])
def test_dtypes_that_cannot_decode_are_refused(dtype: Any) -> None:
    """Breaks when an integer model is asked for logits."""
    with pytest.raises(sv.SettingsError, match="use one of float32, bfloat16, float16, float64"):
        sv.load(dtype=dtype, device="cpu")


@pytest.mark.parametrize("exit_layers", [[], [0], [5], [2, 2], [1.5], "2", 7])
def test_exit_layers_that_the_model_does_not_have_are_refused(exit_layers: Any) -> None:
    """Breaks when an exit is put at the last layer, at none, or twice at one."""
    with pytest.raises(sv.SettingsError, match=r"exit.layer"):
        sv.load(tiny.base("llama"), exit_layers=exit_layers)


# --- asking ---

ASKING = ("stream", "stream_plain", "generate", "generate_plain", "compare")


def ask(model: sv.Model, how: str, prompt: Any, settings: Any = None, **options: Any) -> None:
    """Asks, but reads no event: what is wrong must be said before anything is decoded."""
    if how.endswith("plain"):
        getattr(model, how)(prompt, **options)
    else:
        getattr(model, how)(prompt, settings, **options)


@pytest.mark.parametrize("how", ASKING)
@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ([], r"no tokens: give at least one"),
        ("", r"text, but this model has no tokenizer: give token ids"),
        ("some text", r"text, but this model has no tokenizer: give token ids"),
        ([0, tiny.VOCABULARY], rf"token id 96 is outside the vocabulary: use ids in 0\.\.{tiny.VOCABULARY - 1}"),
        ([-1], r"token id -1 is outside the vocabulary"),
        ([1.5], r"text or a flat list of whole token ids"),
        ([True], r"text or a flat list of whole token ids"),
        ([[1, 2]], r"text or a flat list of whole token ids"),
        (torch.tensor([[1, 2]]), r"text or a flat list of whole token ids"),
        (["a"], r"text or a flat list of whole token ids"),
        (None, r"text or a flat list of whole token ids"),
        (7, r"text or a flat list of whole token ids"),
        (
            [1] * tiny.CONTEXT,
            rf"64 tokens, but the model's context holds 64.*: shorten it to {tiny.CONTEXT - 1} or fewer",
        ),
        ([1] * 1000, r"1000 tokens, but the model's context holds 64"),
    ],
)
def test_prompts_that_cannot_be_gone_on_from_are_refused(how: str, prompt: Any, words: str) -> None:
    """Breaks when a prompt's fault shows as an index error inside the model, or only after work was done."""
    with pytest.raises(sv.PromptError, match=words):
        ask(tiny.load("llama"), how, prompt, max_new_tokens=4)


def test_an_empty_text_is_refused(embedded: sv.Model) -> None:
    """Breaks when an empty prompt box decodes something."""
    with pytest.raises(sv.PromptError, match=r"the prompt is empty: give at least one character"):
        embedded.stream("")
    with pytest.raises(sv.PromptError, match="context holds 1024"):
        embedded.stream("word " * 5000)


@pytest.mark.parametrize("how", ASKING)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        *[({"max_new_tokens": bad}, "max_new_tokens=.*at least 1") for bad in (0, -1, 1.5, "3", None, True, math.nan)],
        (
            {"max_new_tokens": 62},
            r"max_new_tokens=62 after a prompt of 3 tokens .* context of 64: use 1\.\.61",
        ),
        ({"sampling": 0.8}, r"sampling=0\.8: give a Sampling, or None for greedy decoding"),
        ({"detail": "all"}, r"detail='all': use one of tokens, checks, full"),
    ],
)
def test_options_out_of_range_are_refused(how: str, options: dict[str, Any], words: str) -> None:
    """Breaks when a decode runs past its context, or decodes nothing, without a word."""
    with pytest.raises(sv.SettingsError, match=words):
        ask(tiny.load("llama"), how, [1, 2, 3], **{"max_new_tokens": 4, **options})


@pytest.mark.parametrize("how", ["stream", "generate", "compare"])
@pytest.mark.parametrize("bad", [-1, 1.5, "3", True, tiny.VOCABULARY + 1])
def test_top_tokens_out_of_range_are_refused(how: str, bad: Any) -> None:
    """Breaks when more tokens are listed than there are."""
    with pytest.raises(sv.SettingsError, match=r"top_tokens=.*: use a whole number in 0\.\.96"):
        ask(tiny.load("llama"), how, [1], top_tokens=bad, max_new_tokens=4)


@pytest.mark.parametrize("how", ["stream", "generate", "compare"])
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (sv.Settings(max_depth=5), r"max_depth=5, but the model has 5 layers: use 1\.\.4"),
        (sv.Settings(max_depth=1, exit_layers=(2,)), r"max_depth=1 lies below the first exit layer in use, 2"),
        (sv.Settings(exit_layers=(4,)), r"no exit head at 4; it has them at 1, 2, 3"),
        (sv.Settings(schedule=sv.PerLayerTemperature({1: 1.0, 2: 1.0, 3: 1.0, 17: 1.0})), r"names 17, where .*1, 2, 3"),
        (lambda: sv.Settings(max_depth=5), r"max_depth=5, but the model has 5 layers"),
        (lambda: sv.Settings(threshold=2.0), r"threshold=2\.0, but a confidence lies in 0\.\.1"),
        (lambda: None, r"settings=None: give a Settings, or a callable that returns one"),
        ("fast", r"settings='fast': give a Settings"),
        ({"threshold": 0.5}, r"give a Settings"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_decoded(how: str, bad: Any, words: str) -> None:
    """Breaks when the first settings of a decode are only looked at after its prefill."""
    with pytest.raises(sv.SettingsError, match=words):
        ask(tiny.load("llama", [1, 2, 3]), how, [1], bad, max_new_tokens=4)


@given(prompt=st.lists(st.integers(0, tiny.VOCABULARY - 1), min_size=1, max_size=8))
def test_prompts_of_ids_may_come_as_any_flat_sequence(prompt: list[int]) -> None:
    """Breaks when ids that come from torch or numpy must be turned into a list first."""
    model = tiny.load("llama")
    for same in (prompt, tuple(prompt), torch.tensor(prompt), np.array(prompt), iter(prompt)):
        assert model.encode(same) == tuple(prompt)
        assert all(type(token_id) is int for token_id in model.encode(tuple(prompt)))


@pytest.mark.parametrize("how", ["generate", "generate_plain"])
@pytest.mark.parametrize("sampling", [None, sv.Sampling(seed=1)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_model_with_damaged_weights_commits_nothing(how: str, sampling: sv.Sampling | None, bad: float) -> None:
    """Breaks when NaN logits come out as some token and the text goes on."""
    base = copy.deepcopy(tiny.base("llama"))
    with torch.no_grad():
        base.model.layers[-1].mlp.down_proj.weight[0, 0] = bad
    model = sv.load(base, exit_layers=[1, 2])
    with pytest.raises(
        sv.NonFiniteLogitsError, match=r"NaN or infinite logits at its last layer .* position 3"
    ) as error:
        getattr(model, how)([1, 2, 3], max_new_tokens=8, sampling=sampling)
    assert error.value.trace.token_ids == []


def test_an_exit_whose_logits_are_not_finite_is_refused() -> None:
    """Breaks when a confidence of NaN, which compares as false with everything, passes for a hard token."""
    model = tiny.with_random_heads(tiny.load("llama", [1, 2]))
    model.heads.translators[2][0].fill_(math.nan)  # after loading, which would have refused it
    how = sv.Settings(threshold=sv.NEVER)
    with pytest.raises(sv.NonFiniteLogitsError, match="exit layer 2 for the token at position 3") as error:
        model.generate([1, 2], how, max_new_tokens=8)
    assert error.value.trace.token_ids == model.generate_plain([1, 2], max_new_tokens=1).token_ids


def test_a_rotary_switch_in_the_midst_of_a_decode_is_refused() -> None:
    """Breaks when a decode mixes keys of short and of long rotary frequencies: transformers computes all anew there."""
    model = sv.load(tiny.randomised(tiny.phi3_longrope(), 0), exit_layers=[1, 2])
    switch = tiny.CONTEXT // 2
    how = sv.Settings(schedule=sv.NoAnnealing(), threshold=0.2)
    within, across, beyond = [(10, 20), (10, switch - 10)], [(10, 30), (switch, 5)], [(40, 20)]
    for prompt, new in within + across + beyond:
        ids = [(5 * i) % tiny.VOCABULARY for i in range(prompt)]
        if (prompt, new) not in across:
            theirs = tiny.transformers_greedy(model, ids, new)
            tiny.assert_same_text(model, ids, model.generate(ids, how, max_new_tokens=new).token_ids, theirs)
            tiny.assert_same_text(model, ids, model.generate_plain(ids, max_new_tokens=new).token_ids, theirs)
        else:
            with pytest.raises(sv.SettingsError, match=rf"longrope .* at position {switch}"):
                model.stream(ids, how, max_new_tokens=new)


def test_end_of_sequence_ids_are_those_of_the_generation_configuration_or_else_the_models() -> None:
    """Breaks when a chat model with several ends runs on past one of them."""
    model = tiny.load("llama")
    assert model.end_of_sequence_ids == frozenset()
    with tiny.ends_with(model, [3, 5]):
        assert model.end_of_sequence_ids == {3, 5}
    base = copy.deepcopy(tiny.base("llama"))
    base.generation_config.eos_token_id = 4
    assert sv.load(base).end_of_sequence_ids == {4}
    base.generation_config.eos_token_id = None
    base.config.eos_token_id = [6, 7]
    assert sv.load(base).end_of_sequence_ids == {6, 7}


def test_compare_says_where_two_texts_part() -> None:
    """Breaks when a comparison calls different texts equal, or names the wrong place."""
    model = tiny.load("llama", [1, 2])
    plain = model.generate_plain([1, 2], max_new_tokens=8)
    comparison = model.compare([1, 2], max_new_tokens=8)
    assert comparison.equal
    assert comparison.first_difference is None
    assert comparison.speedup > 0
    other = model.generate([1, 2], max_new_tokens=8, sampling=sv.Sampling(temperature=2.0, seed=5))
    parted = sv.Comparison(other, plain)
    index = next(i for i in range(8) if other.token_ids[i] != plain.token_ids[i])
    assert (parted.equal, parted.first_difference) == (False, index)
    assert f"different from new token {index} on" in str(parted)
    shorter = sv.Comparison(model.generate([1, 2], max_new_tokens=5), plain)
    assert (shorter.equal, shorter.first_difference) == (False, 5)


def test_loading_changes_nothing_in_a_model_that_is_given() -> None:
    """Breaks when a model that the user goes on using comes back with other weights or another configuration."""
    base = copy.deepcopy(tiny.base("qwen3"))
    weights, configuration = describe_base(LayeredModel(base)), base.config.to_dict()
    sv.load(base).generate([1], max_new_tokens=4)
    assert describe_base(LayeredModel(base)) == weights
    assert base.config.to_dict() == configuration


def test_what_ships_is_complete_and_needs_no_code_of_its_own() -> None:
    """Breaks when the embedded model loses a file, or brings one that could run code."""
    names = {path.name for path in embedded_folder().iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith((".py", ".bin", ".pkl", ".pt"))]


def test_a_folder_may_be_named_in_every_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a relative path, or one with a home in it, is taken for a hub id."""
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    shutil.copytree(folder, folder.parent / "a" / "b")
    for name in ("model", "./model", "a/b", "~/model", folder, str(folder) + "/"):
        assert sv.load(name, device="cpu").num_layers == 5


def test_half_a_character_in_a_prompt_is_refused_in_words(embedded):
    """A lone surrogate is no text; tokenizers fail on it in words of their own."""
    with pytest.raises(sv.PromptError, match="half a character"):
        embedded.stream("Once \ud83d upon", max_new_tokens=2)
