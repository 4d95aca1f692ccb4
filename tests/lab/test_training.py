"""Training exit heads, on a small random model."""

from __future__ import annotations

import os
import signal

import pytest
import tiny
import torch
from torch import Tensor

import selfdraft_viz as sv
from selfdraft_viz.lab.corpus import continuations, own_samples, token_windows
from selfdraft_viz.lab.heads_table import heads_table
from selfdraft_viz.lab.training import agreement, frozen_pass

RECIPE = {
    "steps": 30,
    "batch_size": 4,
    "window": 16,
    "learning_rate": 2e-2,
    "warmup": 3,
    "checkpoint_every": 7,
    "progress": False,
}


@pytest.fixture
def model() -> sv.Model:
    return sv.load(tiny.base("llama", 3, torch.float32), exit_layers=[1, 2, 3])


@pytest.fixture
def windows(model: sv.Model) -> Tensor:
    return own_samples(model, 240 * 16, 16, seed=1, progress=False)


@pytest.mark.parametrize("loss", ["argmax", "kl"])
def test_agreement_with_the_last_layer_grows_on_text_not_trained_on(model, windows, loss):
    """A gradient that does not reach the translators, or a wrong target, would leave agreement where it was."""
    held_out = own_samples(model, 60 * 16, 16, seed=2, progress=False)
    heads = sv.train_exit_heads(model, windows, loss=loss, validation=held_out, **{**RECIPE, "steps": 150})
    shares = heads.metadata["training"]["agreement"].values()
    missed_before, missed_after = (
        sum(1 - share["before"] for share in shares),
        sum(1 - share["after"] for share in shares),
    )
    assert missed_after < 0.9 * missed_before


def test_text_loss_learns_the_next_token_of_the_text(model):
    """Text that is one cycle: the head must learn it, whatever the last layer thinks of it."""
    cycle = torch.arange(120 * 16).view(120, 16) % 7
    heads = sv.train_exit_heads(model, cycle, exit_layers=[3], loss="text", **{**RECIPE, "steps": 150})
    hidden_states, _ = frozen_pass(model.layered, cycle[:20], [3])
    with torch.no_grad():
        guesses = heads.logits(model.layered, 3, hidden_states[3]).argmax(dim=-1).view(20, 16)
    assert (guesses[:, :-1] == cycle[:20, 1:]).float().mean() > 0.9


def test_the_base_is_not_touched(model, windows):
    before = {name: parameter.clone() for name, parameter in model.base.named_parameters()}
    sv.train_exit_heads(model, windows, **RECIPE)
    for name, parameter in model.base.named_parameters():
        assert torch.equal(before[name], parameter), name
        assert parameter.grad is None, name


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(model, windows, tmp_path):
    """The optimizer's moments, the learning rate and the order of the data all go on where they were."""
    whole = sv.train_exit_heads(model, windows, **RECIPE)
    checkpoint = tmp_path / "run.safetensors"
    interrupted = _interrupted_after(12, model, windows, checkpoint)
    assert interrupted.metadata["training"]["interrupted"]
    assert 0 < interrupted.metadata["training"]["steps_done"] < RECIPE["steps"]
    resumed = sv.train_exit_heads(model, windows, checkpoint=checkpoint, **RECIPE)
    assert resumed.metadata["training"]["steps_done"] == RECIPE["steps"]
    assert not resumed.metadata["training"]["interrupted"]
    for layer, (weight, bias) in whole.translators.items():
        torch.testing.assert_close(resumed.translators[layer][0], weight)
        torch.testing.assert_close(resumed.translators[layer][1], bias)


def _interrupted_after(steps: int, model: sv.Model, windows: Tensor, checkpoint) -> sv.ExitHeads:
    """Train, with a real interrupt sent from inside the base model's forward pass."""
    calls = 0

    def hook(*_):
        nonlocal calls
        calls += model.base.training is False and torch.is_grad_enabled() is False
        if calls == steps:
            os.kill(os.getpid(), signal.SIGINT)

    handle = model.layered.layers[0].register_forward_hook(hook)
    try:
        return sv.train_exit_heads(model, windows, checkpoint=checkpoint, **RECIPE)
    finally:
        handle.remove()


def test_a_checkpoint_of_another_run_is_refused(model, windows, tmp_path):
    checkpoint = tmp_path / "run.safetensors"
    sv.train_exit_heads(model, windows, checkpoint=checkpoint, **RECIPE)
    with pytest.raises(sv.LoadError, match="another training run"):
        sv.train_exit_heads(model, windows, checkpoint=checkpoint, **{**RECIPE, "learning_rate": 1e-3})


def test_trained_heads_decode_exactly_and_know_their_model(model, windows, tmp_path):
    heads = sv.train_exit_heads(model, windows, **RECIPE)
    again = sv.load(model.base, heads=heads.save(tmp_path))
    compared = again.compare([3, 1, 4], sv.Settings(threshold=0.1), max_new_tokens=30)
    assert compared.equal
    assert compared.selfdraft.summary()["drafted"] > 0
    with pytest.raises(sv.HeadsMismatchError):
        sv.load(tiny.base("llama", 4, torch.float32), heads=tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_models_of_any_dtype_can_be_trained_for(dtype):
    model = sv.load(tiny.base("llama", 3, dtype), exit_layers=[2])
    heads = sv.train_exit_heads(model, own_samples(model, 30 * 16, 16, progress=False), **RECIPE)
    assert model.with_heads(heads).compare([3, 1], sv.Settings(threshold=0.1), max_new_tokens=8).selfdraft.token_ids


def test_training_goes_on_from_trained_heads(model, windows):
    """With a learning rate too small to change anything, the heads that come out are those that went in."""
    first = sv.train_exit_heads(model, windows, vocabulary=20, **RECIPE)
    second = sv.train_exit_heads(model, windows, start=first, **{**RECIPE, "steps": 1, "learning_rate": 1e-12})
    for layer, (weight, bias) in first.translators.items():
        torch.testing.assert_close(second.translators[layer][0], weight)
        torch.testing.assert_close(second.translators[layer][1], bias)
    assert second.vocabulary.tolist() == first.vocabulary.tolist()
    assert second.metadata["training"]["went_on_from"]["steps_done"] == RECIPE["steps"]


def test_a_reduced_vocabulary_drafts_only_its_tokens_and_stays_exact(model, windows):
    heads = sv.train_exit_heads(model, windows, vocabulary=20, **RECIPE)
    frequent = windows.flatten().bincount(minlength=tiny.VOCABULARY)
    assert set(frequent.argsort(descending=True)[:10].tolist()) <= set(heads.vocabulary.tolist())
    reduced = model.with_heads(heads)
    for sampling in (None, sv.Sampling(seed=5)):
        compared = reduced.compare(
            [3, 1, 4], sv.Settings(threshold=0.1), max_new_tokens=30, sampling=sampling, top_tokens=3
        )
        checks = compared.selfdraft.exit_checks
        assert compared.equal
        assert set(checks["token_id"]) <= set(heads.vocabulary.tolist())
        assert all(set(ids) <= set(heads.vocabulary.tolist()) for ids in checks["top_token_ids"])


def test_where_the_token_is_not_in_the_vocabulary_the_head_learns_to_be_unsure(model):
    """Two texts: one whose next token can be drafted, one where it cannot. Confidence must tell them apart."""
    inside, outside = torch.tensor([5, 6] * 8), torch.tensor([40, 41] * 8)
    texts = torch.stack([inside, outside]).repeat(40, 1)
    heads = sv.train_exit_heads(
        model, texts, exit_layers=[3], loss="text", vocabulary=torch.tensor([5, 6, 7, 8]), **{**RECIPE, "steps": 150}
    )
    hidden_states, _ = frozen_pass(model.layered, torch.stack([inside, outside]), [3])
    with torch.no_grad():
        confidence = heads.logits(model.layered, 3, hidden_states[3]).softmax(-1).amax(-1).view(2, 16)[:, 4:-1]
    assert confidence[0].min() > 0.8
    assert confidence[1].max() < 0.4


def test_without_texts_it_trains_on_the_models_own_samples(model):
    heads = sv.train_exit_heads(model, **{**RECIPE, "steps": 4})
    training = heads.metadata["training"]
    assert training["train_windows"] > 0
    assert heads.exit_layers == model.exit_layers


def test_agreement_is_that_of_the_logits(model, windows):
    """Recomputed from transformers' own hidden states and logits."""
    share = agreement(model.layered, sv.ExitHeads([2]), windows[:10])
    output = model.base(windows[:10], output_hidden_states=True)
    lens = model.base.lm_head(model.base.model.norm(output.hidden_states[2])).argmax(-1)
    assert share[2] == pytest.approx(float((lens == output.logits.argmax(-1)).float().mean()))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": "mse"}, "argmax, kl, text"),
        ({"steps": 0}, "at least 1"),
        ({"learning_rate": float("nan")}, "above 0"),
        ({"vocabulary": 1}, "2..96"),
        ({"exit_layers": [5]}, "1..4"),
    ],
)
def test_bad_arguments_are_refused_with_range_and_remedy(model, windows, changes, words):
    with pytest.raises(ValueError, match=words):
        sv.train_exit_heads(model, windows, **{**RECIPE, **changes})


def test_windows_need_text_and_context(model):
    with pytest.raises(sv.PromptError, match="less than one window"):
        token_windows(model, [[1, 2, 3]], 16)
    with pytest.raises(sv.PromptError, match=f"2..{tiny.CONTEXT}"):
        token_windows(model, [[1, 2, 3]], tiny.CONTEXT + 1)


@pytest.mark.parametrize("family", ["llama", "mistral sliding", "gpt2", "gpt_neox", "gemma3 text"])
def test_batched_continuations_are_those_of_ordinary_decoding(family):
    model = tiny.load(family)
    prompts = torch.tensor([[3, 1, 4], [1, 5, 9], [2, 6, 5]])
    made = continuations(model, prompts, 20, batch_size=2, progress=False)
    for prompt, row in zip(prompts, made, strict=True):
        plain = model.generate_plain(prompt.tolist(), max_new_tokens=20, stop_at_end=False)
        assert row.tolist() == [*prompt.tolist(), *plain.token_ids]


def test_low_rank_translators_learn_and_stay_low_rank(model, windows, tmp_path):
    held_out = own_samples(model, 60 * 16, 16, seed=2, progress=False)
    recipe = {**RECIPE, "steps": 150, "validation": held_out}
    heads = sv.train_exit_heads(model, windows, rank=4, **recipe)
    training = heads.metadata["training"]
    assert training["rank"] == 4
    assert training["trained_parameters"] == 3 * (2 * 4 * tiny.WIDTH + tiny.WIDTH)
    for translator in heads.translators.values():
        assert (translator.up.shape, translator.down.shape) == ((tiny.WIDTH, 4), (4, tiny.WIDTH))
    kept = agreement(model.layered, sv.ExitHeads.load(heads.save(tmp_path)), held_out)
    assert kept == {layer: training["agreement"][str(layer)]["after"] for layer in heads.exit_layers}
    shares = training["agreement"].values()
    assert sum(share["after"] for share in shares) > sum(share["before"] for share in shares)


def test_a_low_rank_run_resumes(model, windows, tmp_path):
    whole = sv.train_exit_heads(model, windows, rank=3, **RECIPE)
    checkpoint = tmp_path / "run.safetensors"
    sv.train_exit_heads(model, windows, rank=3, checkpoint=checkpoint, **RECIPE)
    again = sv.train_exit_heads(model, windows, rank=3, checkpoint=checkpoint, **RECIPE)
    for layer, translator in whole.translators.items():
        for learned, resumed in zip(translator, again.translators[layer], strict=True):
            torch.testing.assert_close(resumed, learned)
    with pytest.raises(sv.LoadError, match="another training run"):
        sv.train_exit_heads(model, windows, rank=2, checkpoint=checkpoint, **RECIPE)


def test_a_rank_out_of_range_is_refused(model, windows):
    for rank in (0, tiny.WIDTH + 1, 2.5):
        with pytest.raises(sv.SettingsError, match=r"1\.\.32"):
            sv.train_exit_heads(model, windows, rank=rank, **RECIPE)


def test_low_rank_heads_go_on_at_their_rank(model, windows):
    first = sv.train_exit_heads(model, windows, rank=3, **RECIPE)
    unmoving = {**RECIPE, "steps": 1, "learning_rate": 1e-12}
    for rank in (None, 3):
        second = sv.train_exit_heads(model, windows, start=first, rank=rank, **unmoving)
        for layer, translator in first.translators.items():
            for before, after in zip(translator, second.translators[layer], strict=True):
                torch.testing.assert_close(after, before)
    with pytest.raises(sv.SettingsError, match=r"rank=2, but the heads to start from are of rank 3: leave rank out"):
        sv.train_exit_heads(model, windows, rank=2, start=first, **RECIPE)
    whole = sv.train_exit_heads(model, windows, **unmoving)
    with pytest.raises(sv.SettingsError, match="are whole matrices"):
        sv.train_exit_heads(model, windows, rank=2, start=whole, **RECIPE)


def test_documents_are_streamed_and_no_more_are_taken_than_needed(model):
    """An endless source of documents must not be read for ever."""
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield [(taken * 7 + place) % tiny.VOCABULARY for place in range(50)]

    heads = sv.train_exit_heads(model, endless(), **RECIPE)
    needed = RECIPE["steps"] * RECIPE["batch_size"]
    assert heads.metadata["training"]["train_windows"] >= needed
    assert taken <= (needed * 1.1 + 2) * RECIPE["window"] / 50 + 1


def test_the_table_of_heads_has_agreement_and_cost(model, windows):
    heads = sv.train_exit_heads(model, windows, **RECIPE)
    table = heads_table(model, heads, repeats=5)
    assert table["exit_layer"].tolist() == [1, 2, 3]
    expected = [share["after"] for share in heads.metadata["training"]["agreement"].values()]
    assert table["after"].tolist() == expected
    assert (table[["check_ms", "check_layers"]] > 0).all(axis=None)
    assert (table["parameters"] == tiny.WIDTH * (tiny.WIDTH + 1)).all()
    assert (table["training_tokens"] == RECIPE["steps"] * RECIPE["batch_size"] * RECIPE["window"]).all()
    assert (table["training_seconds"] == heads.metadata["training"]["seconds"]).all()
    lens = heads_table(model, model.heads, repeats=2)
    assert lens["before"].isna().all()
    assert (lens["parameters"] == 0).all()
