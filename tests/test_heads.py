"""Exit heads: what they compute, and that they only ever meet the model that they were trained for."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from strategies import examples

import selfdraft_viz as sv
from selfdraft_viz.heads import HEADS_FILE, default_exit_layers, describe_base
from selfdraft_viz.layered import LayeredModel


def rows(model: sv.Model, count: int = 3) -> torch.Tensor:
    return torch.randn(count, model.layered.width, generator=torch.Generator().manual_seed(5), dtype=model.dtype)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@torch.no_grad()
def test_the_logit_lens_is_the_models_own_norm_and_head(family: str) -> None:
    """Breaks when an exit at a family leaves out its norm, its soft-capping, or reads another head."""
    model = tiny.load(family)
    hidden = rows(model)
    lens = model.heads.logits(model.layered, model.exit_layers[0], hidden)
    base, cap = model.base, getattr(model.base.config.get_text_config(), "final_logit_softcapping", None)
    logits = base.get_output_embeddings()(model.layered.norm(hidden))
    torch.testing.assert_close(lens, logits if cap is None else cap * torch.tanh(logits / cap), rtol=0, atol=0)
    assert lens.shape == (3, tiny.VOCABULARY)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox"])
@torch.no_grad()
def test_identity_translators_are_the_logit_lens(family: str) -> None:
    """Breaks when training does not start at the logit lens: the tuned lens's defining property."""
    lens = tiny.load(family, [1, 3])
    identity = tiny.with_random_heads(lens, strength=0.0)
    hidden = rows(lens)
    assert identity.heads.trained
    for layer in (1, 3):
        ours, theirs = (model.heads.logits(model.layered, layer, hidden) for model in (lens, identity))
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    how = sv.Settings(threshold=0.2)
    ours, theirs = (model.generate([3, 1], how, max_new_tokens=16) for model in (lens, identity))
    assert ours.exit_checks["token_id"].tolist() == theirs.exit_checks["token_id"].tolist()


@examples(12)
@given(
    seed=st.integers(0, 1000),
    rank=st.none() | st.integers(1, tiny.WIDTH),
    words=st.none() | st.sets(st.integers(0, tiny.VOCABULARY - 1), min_size=1),
)
def test_saved_heads_come_back_as_they_were(
    seed: int, rank: int | None, words: set[int] | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Breaks when a weight, a factor, a layer, the vocabulary or the metadata changes on the way through a file."""
    model = tiny.with_random_heads(tiny.load("llama", [1, 2, 4]), seed, rank=rank)
    vocabulary = None if words is None else torch.tensor(sorted(words, reverse=True))
    metadata = {**model.heads.metadata, "training": {"steps": seed, "loss": "argmax"}}
    heads = sv.ExitHeads(model.exit_layers, model.heads.translators, metadata, vocabulary)
    folder = tmp_path_factory.mktemp("heads")
    path = heads.save(folder)
    assert path == folder / HEADS_FILE
    assert heads.save(folder / "mine.safetensors") == folder / "mine.safetensors"
    for where in (folder, str(folder), path, folder / "mine.safetensors"):
        loaded = sv.ExitHeads.load(where)
        assert (loaded.exit_layers, loaded.metadata, loaded.kind) == (heads.exit_layers, metadata, "trained")
        for layer in heads.exit_layers:
            for ours, theirs in zip(heads.translators[layer], loaded.translators[layer], strict=True):
                assert torch.equal(ours, theirs)
        assert loaded.vocabulary is None if words is None else loaded.vocabulary.tolist() == sorted(words)
        assert model.with_heads(loaded).heads.metadata == metadata


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox"])
@torch.no_grad()
def test_a_low_rank_head_is_the_whole_matrix_that_it_stands_for(family: str, tmp_path: Path) -> None:
    """Breaks when the factors are multiplied otherwise than I + up down, or kept in a file as a whole matrix."""
    lens = tiny.load(family, [1, 3])
    thin = tiny.with_random_heads(lens, rank=3, strength=0.8)
    whole = lens.with_heads(
        sv.ExitHeads(
            [1, 3],
            {layer: (one.matrix(), one.bias) for layer, one in thin.heads.translators.items()},
            thin.heads.metadata,
        )
    )
    hidden = rows(lens)
    for layer in (1, 3):
        ours, theirs = (model.heads.logits(model.layered, layer, hidden) for model in (thin, whole))
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
        assert not torch.allclose(ours, lens.heads.logits(lens.layered, layer, hidden), atol=1e-3)
    sizes = [model.heads.save(tmp_path / name).stat().st_size for name, model in (("thin", thin), ("whole", whole))]
    numbers = (2 * (2 * 3 + 1) * tiny.WIDTH, 2 * (tiny.WIDTH + 1) * tiny.WIDTH)
    assert sizes[1] - sizes[0] == pytest.approx(8 * (numbers[1] - numbers[0]), abs=200)
    assert thin.heads.to("cpu", torch.float32).translators[1].up.dtype == torch.float32


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("bitwise", [False, True])
def test_decoding_with_low_rank_heads_is_exact(family: str, bitwise: bool) -> None:
    """Breaks when low-rank heads change what is committed, or are left out of the checks of a decode."""
    lens = sv.load(tiny.base(family), exit_layers=[1, 3], bitwise=bitwise)
    thin = tiny.with_random_heads(lens, rank=2, strength=1.0)
    for sampling in (None, sv.Sampling(seed=3)):
        compared = thin.compare([3, 1], sv.Settings(threshold=0.05), max_new_tokens=24, sampling=sampling)
        assert compared.equal
        assert compared.selfdraft.summary()["accepted"] > 0
    how = sv.Settings(threshold=sv.NEVER)
    checks = [one.generate([3, 1], how, max_new_tokens=8).exit_checks["confidence"].tolist() for one in (lens, thin)]
    assert checks[0] != checks[1]


@examples(25)
@given(
    words=st.sets(st.integers(0, tiny.VOCABULARY - 1), min_size=1),
    seed=st.integers(0, 50),
    sampled=st.booleans(),
    family=st.sampled_from(["llama", "gemma2", "gpt2"]),
)
def test_heads_of_a_reduced_vocabulary_draft_from_it_alone_and_change_no_text(
    words: set[int], seed: int, sampled: bool, family: str
) -> None:
    """Breaks when a column of the reduced logits is taken for a token id, or verification is reduced too."""
    full = tiny.with_random_heads(tiny.load(family, [1, 3]), seed)
    vocabulary = torch.tensor(sorted(words))
    reduced = full.with_heads(sv.ExitHeads([1, 3], full.heads.translators, full.heads.metadata, vocabulary))
    options = {"max_new_tokens": 12, "sampling": sv.Sampling(seed=seed) if sampled else None}
    how = sv.Settings(schedule=sv.NoAnnealing(), threshold=0.3)
    trace = reduced.generate([seed], how, top_tokens=2, **options)
    assert trace.token_ids == full.generate_plain([seed], **options).token_ids
    assert set(trace.exit_checks["token_id"]) <= words
    assert {token_id for ids in trace.exit_checks["top_token_ids"] for token_id in ids} <= words
    hidden = rows(full)
    with torch.no_grad():
        whole = full.heads.logits(full.layered, 3, hidden)
        torch.testing.assert_close(reduced.heads.logits(full.layered, 3, hidden), whole[:, vocabulary])


def test_heads_of_another_model_are_refused() -> None:
    """Breaks when heads are read with a model that they were not trained for: a bad plot, or a slow decode, and no
    error."""
    mine = tiny.with_random_heads(tiny.load("llama", [1, 2], seed=0))
    other = tiny.load("llama", [1, 2], seed=1)  # the same shape, other weights
    for load in (lambda: other.with_heads(mine.heads), lambda: sv.load(other.base, heads=mine.heads)):
        with pytest.raises(sv.HeadsMismatchError, match=r"trained for another model.*hash.*heads='logit lens'"):
            load()
    deeper = tiny.load("gemma3 text")
    with pytest.raises(sv.HeadsMismatchError, match=r"num_layers 5 against 6"):
        deeper.with_heads(mine.heads)
    unknown = sv.ExitHeads([1, 2], mine.heads.translators)
    with pytest.raises(sv.HeadsMismatchError):
        mine.with_heads(unknown)


def test_heads_deeper_than_the_model_are_refused() -> None:
    """Breaks when logit-lens heads, which fit every model, are put where there is no layer."""
    with pytest.raises(sv.SettingsError, match=r"exit layer 5: .* 1\.\.4, and the model has 5 layers"):
        sv.load(tiny.base("llama"), heads=sv.ExitHeads([2, 5]))


def test_exit_layers_without_a_trained_head_are_refused() -> None:
    """Breaks when an untrained head slips in among trained ones."""
    model = tiny.with_random_heads(tiny.load("llama", [1, 3]))
    with pytest.raises(sv.HeadsMismatchError, match=r"no trained head at exit layer 2; there are heads at 1, 3"):
        sv.load(model.base, heads=model.heads, exit_layers=[1, 2])
    assert sv.load(model.base, heads=model.heads, exit_layers=[3]).exit_layers == (3,)
    assert model.with_heads("logit lens").exit_layers == (1, 3)
    assert not model.with_heads("logit lens").heads.trained


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("family", ["llama", "llama tied, one key-value head", "gpt_neox"])
def test_the_hash_of_a_model_does_not_depend_on_its_dtype(family: str, dtype: torch.dtype) -> None:
    """Breaks when heads trained in one dtype are refused, for no reason, in another."""
    stored = copy.deepcopy(tiny.base(family)).to(torch.bfloat16)  # as a checkpoint holds it
    expected = describe_base(LayeredModel(stored))
    assert describe_base(LayeredModel(copy.deepcopy(stored).to(dtype))) == expected
    changed = copy.deepcopy(stored)
    with torch.no_grad():
        changed.get_output_embeddings().weight[3, 3] += 1.0
    assert describe_base(LayeredModel(changed))["hash"] != expected["hash"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_heads_that_are_not_finite_are_refused_before_anything_is_decoded(bad: float) -> None:
    """Breaks when a NaN in one exit head ends a decode midway, or never exits there without a word."""
    model = tiny.with_random_heads(tiny.load("llama", [1, 2]))
    weight, bias = model.heads.translators[2]
    third = torch.tensor([3])
    for damaged in ((weight.index_fill(0, third, bad), bias), (weight, bias.index_fill(0, third, bad))):
        heads = sv.ExitHeads([1, 2], {1: (weight, bias), 2: damaged}, model.heads.metadata)
        with pytest.raises(sv.LoadError, match=r"exit head at layer 2 holds NaN or infinite numbers: .*logit lens"):
            model.with_heads(heads)


def test_heads_of_the_wrong_shape_or_vocabulary_are_refused() -> None:
    """Breaks when damaged heads fail somewhere inside a decode."""
    model = tiny.with_random_heads(tiny.load("llama", [1]))
    weight, bias = model.heads.translators[1]
    for damaged in ((weight[:-1], bias), (weight, bias[:-1]), (bias, bias)):
        with pytest.raises(sv.LoadError, match="not 32 numbers wide"):
            model.with_heads(sv.ExitHeads([1], {1: damaged}, model.heads.metadata))
    for damaged in ((weight[:, :2], weight[:3], bias), (weight[:, :2], weight[:2, :5], bias), (bias, weight, bias)):
        with pytest.raises(sv.LoadError, match="not 32 numbers wide"):
            model.with_heads(sv.ExitHeads([1], {1: damaged}, model.heads.metadata))
    with pytest.raises(ValueError, match=r"4 tensors: use \(weight, bias\), or \(up, down, bias\)"):
        sv.ExitHeads([1], {1: (weight, weight, bias, bias)})
    for words in ([], [3, 3], [-1, 2], [5, tiny.VOCABULARY]):
        vocabulary = torch.tensor(words, dtype=torch.int64)
        with pytest.raises(sv.LoadError, match=rf"different ones in 0\.\.{tiny.VOCABULARY - 1}"):
            model.with_heads(sv.ExitHeads([1], model.heads.translators, model.heads.metadata, vocabulary))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.with_random_heads(tiny.load("llama", [1, 2])).heads.save(tmp_path_factory.mktemp("saved"))


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(saved: Path, share: float) -> None:
    """Breaks when half a file gives half a head, or an error that nobody expects."""
    whole = saved.read_bytes()
    truncated = saved.with_name("truncated.safetensors")
    truncated.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(sv.LoadError, match=r"truncated\.safetensors is damaged, or not a safetensors file"):
        sv.ExitHeads.load(truncated)


@examples(200)
@given(index=st.integers(0, 900), flip=st.integers(1, 255))
def test_a_damaged_byte_gives_heads_or_a_load_error(saved: Path, index: int, flip: int) -> None:
    """Breaks when damage in the header, which those bytes are, comes out as another error than `LoadError`."""
    content = bytearray(saved.read_bytes())
    content[index] ^= flip
    damaged = saved.with_name("damaged.safetensors")
    damaged.write_bytes(content)
    with contextlib.suppress(sv.SelfDraftError):
        tiny.load("llama").with_heads(sv.ExitHeads.load(damaged))


def test_files_that_hold_no_heads_are_refused_in_words(saved: Path, tmp_path: Path) -> None:
    """Breaks when a wrong file gives a stack trace and no remedy."""
    for missing in (tmp_path, tmp_path / "none.safetensors"):
        with pytest.raises(sv.LoadError, match=r"no exit heads at .*: give the file or folder that heads\.save"):
            sv.ExitHeads.load(missing)
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, other)
    with pytest.raises(sv.LoadError, match="holds no exit heads of selfdraft_viz"):
        sv.ExitHeads.load(other)
    with safe_open(saved, framework="pt") as opened:
        header, tensors = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118

    def rewritten(**changes: str) -> Path:
        save_file(tensors, other, metadata={**header, **changes})
        return other

    with pytest.raises(sv.LoadError, match=r"format version 99, this program reads 1 and 2: update selfdraft_viz"):
        sv.ExitHeads.load(rewritten(format_version="99"))
    assert header["format_version"] == "1"  # whole matrices: what older programs read, too
    with pytest.raises(sv.LoadError, match=r"incomplete: 'layer_3\.weight' is missing"):
        sv.ExitHeads.load(rewritten(exit_layers=json.dumps([1, 2, 3])))
    for damage in ({"exit_layers": "[1,"}, {"exit_layers": "[0]"}, {"exit_layers": "7"}, {"metadata": "{"}):
        with pytest.raises(sv.LoadError):
            sv.ExitHeads.load(rewritten(**damage))


def test_neither_training_nor_decoding_changes_the_base() -> None:
    """Breaks when a parameter of the base moves: then the output is no longer that of the model that was loaded."""
    base = copy.deepcopy(tiny.base("llama", dtype=torch.float32))
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    flags = {name: parameter.requires_grad for name, parameter in base.named_parameters()}
    model = sv.load(base, exit_layers=[1, 2])
    texts = [[(7 * i + j) % tiny.VOCABULARY for j in range(24)] for i in range(6)]
    heads = sv.train_exit_heads(model, texts, steps=3, batch_size=2, window=16, learning_rate=0.1, progress=False)
    identity = torch.eye(tiny.WIDTH)
    assert any(not torch.equal(weight, identity) for weight, _ in heads.translators.values())
    model.with_heads(heads).compare([1, 2], max_new_tokens=8)
    after = base.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert flags == {name: parameter.requires_grad for name, parameter in base.named_parameters()}
    assert all(parameter.grad is None for parameter in base.parameters())
    assert not base.training


def test_logit_lens_heads_have_nothing_to_save(tmp_path: Path) -> None:
    """Breaks when saving nothing leaves an empty file that later loads as something."""
    with pytest.raises(sv.LoadError, match="heads='logit lens'"):
        sv.ExitHeads([1, 2]).save(tmp_path)


@given(num_layers=st.integers(2, 200))
def test_default_exit_layers_fit_every_depth(num_layers: int) -> None:
    """Breaks when a model of two layers, or of a hundred, gets exits that it cannot have."""
    layers = default_exit_layers(num_layers)
    assert layers == sv.ExitHeads(layers).exit_layers
    assert layers[0] >= 1
    assert layers[-1] <= max(1, (num_layers + 1) // 2) < num_layers
