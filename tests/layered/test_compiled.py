"""The compiled kernels compute what transformers' layers do, and a row's bits do not depend on its company."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import selfdraft_viz as sv
from selfdraft_viz.errors import NonFiniteLogitsError
from selfdraft_viz.layered import LayeredModel
from selfdraft_viz.layered.compiled import CompiledStaircase, reason_against

pytest.importorskip("numba")

FAMILIES = [
    "llama",
    "llama tied, one key-value head",
    "llama, rope yarn",
    "mistral sliding",
    "qwen2",
    "qwen2 sliding",
    "qwen3",
    "smollm3",
]


def pair(family: str, bfloat16_weights: bool) -> tuple[LayeredModel, LayeredModel]:
    """One float32 model, run by transformers' layers and by the compiled kernels."""
    base = copy.deepcopy(tiny.base(family, dtype=torch.float32))
    if bfloat16_weights:
        base = base.to(torch.bfloat16).to(torch.float32)
    plain, compiled = LayeredModel(base), LayeredModel(base)
    compiled.compile()
    return plain, compiled


def carried(model: LayeredModel, token_ids: list[int], pieces: list[int]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Hidden states after each layer, and logits, of a text that comes in pieces of these sizes."""
    staircase = model.open(tiny.CONTEXT)
    states: list[list[torch.Tensor]] = [[] for _ in range(model.num_layers)]
    start = 0
    for size in pieces:
        staircase.push(token_ids[start : start + size])
        for layer in range(1, model.num_layers + 1):
            staircase.advance(layer)
            states[layer - 1].append(staircase.hidden_states(start, start + size).clone())
        start += size
    return [torch.cat(parts) for parts in states], staircase.logits(0, start)


@pytest.mark.parametrize("bfloat16_weights", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_gives_what_the_model_s_own_gives(family: str, bfloat16_weights: bool) -> None:
    """Breaks when a bias, a norm of heads, a window or a rotary table is left out, or a weight loses bits."""
    plain, compiled = pair(family, bfloat16_weights)
    assert compiled.compiled is not None
    assert (compiled.compiled.layers.qkv.dtype == np.uint16) == bfloat16_weights
    token_ids = [(7 * i + 3) % tiny.VOCABULARY for i in range(40)]
    theirs, their_logits = carried(plain, token_ids, [12, 1, 3, 24])
    ours, our_logits = carried(compiled, token_ids, [12, 1, 3, 24])
    for layer, (a, b) in enumerate(zip(ours, theirs, strict=True), 1):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, msg=f"layer {layer}")
    torch.testing.assert_close(our_logits, their_logits, rtol=1e-3, atol=1e-3)


@examples(30)
@given(
    family=st.sampled_from(FAMILIES),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    threads=st.sampled_from([1, 2]),
)
def test_a_row_has_the_same_bits_alone_as_among_others(family: str, sizes: list[int], threads: int) -> None:
    """Breaks when a sum is made in another order for another number of rows or threads: then drafting, verification
    and ordinary decoding could tell near-ties differently."""
    _, model = pair(family, True)
    count = sum(sizes)
    token_ids = [(5 * i + 1) % tiny.VOCABULARY for i in range(count)]
    torch.set_num_threads(threads)
    try:
        states, logits = carried(model, token_ids, sizes)
    finally:
        torch.set_num_threads(1)
    alone, alone_logits = carried(model, token_ids, [1] * count)
    for a, b in zip(states, alone, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(logits, alone_logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_those_of_transformers_and_selfdraft_ones_are_bitwise_plain(family: str) -> None:
    """Breaks when a decode through the compiled kernels says something else than the model."""
    base = copy.deepcopy(tiny.base(family, dtype=torch.float32))
    model = tiny.with_random_heads(sv.load(base, exit_layers=[1, 2, 3], kernels="compiled"))
    assert isinstance(model.layered.open(4), CompiledStaircase)
    for prompt in ([3, 1, 4], list(range(20))):
        theirs = tiny.transformers_greedy(model, prompt, 24)
        plain = model.generate_plain(prompt, max_new_tokens=24).token_ids
        tiny.assert_same_text(model, prompt, plain, theirs, margin=1e-4)
        for threshold in (0.05, 0.3, 1.0):
            how = sv.Settings(threshold=threshold, schedule=sv.NoAnnealing())
            assert model.generate(prompt, how, max_new_tokens=24).token_ids == plain
            sampling = sv.Sampling(seed=5, top_p=0.9)
            sampled = model.generate(prompt, how, max_new_tokens=24, sampling=sampling).token_ids
            assert sampled == model.generate_plain(prompt, max_new_tokens=24, sampling=sampling).token_ids


@pytest.mark.parametrize("rank", [None, 1, 5, 70])
@pytest.mark.parametrize("vocabulary", [None, [2, 3, 50, 71, 90]])
def test_an_exit_check_reads_what_the_head_says(vocabulary: list[int] | None, rank: int | None) -> None:
    """Breaks when the compiled check leaves out a translator, its bias, the norm, or the reduced vocabulary."""
    base = copy.deepcopy(tiny.base("llama", dtype=torch.float32))
    plain = tiny.with_random_heads(sv.load(base, exit_layers=[1, 3], kernels="torch"), strength=1.0, rank=rank)
    compiled = sv.load(base, exit_layers=[1, 3], kernels="compiled")
    heads = plain.heads
    if vocabulary is not None:
        heads = sv.ExitHeads(heads.exit_layers, heads.translators, heads.metadata, torch.tensor(vocabulary))
    how = sv.Settings(threshold=sv.NEVER, schedule=sv.LinearAnnealing(0.7))
    checks = [
        model.with_heads(heads).generate([1, 2, 3], how, max_new_tokens=12, top_tokens=2).exit_checks
        for model in (plain, compiled)
    ]
    assert len(checks[0]) == len(checks[1]) > 0
    for name in ("confidence", "unannealed_confidence"):
        np.testing.assert_allclose(checks[0][name], checks[1][name], rtol=1e-4)
    assert checks[0]["token_id"].tolist() == checks[1]["token_id"].tolist()


def test_weights_that_changed_are_not_computed_with_in_their_old_form() -> None:
    """Breaks when a model fine-tuned after loading goes on decoding with its old weights."""
    base = copy.deepcopy(tiny.base("llama", dtype=torch.float32))
    model = sv.load(base, kernels="compiled")
    assert isinstance(model.layered.open(4), CompiledStaircase)
    with torch.no_grad():
        base.model.layers[0].mlp.down_proj.weight.mul_(1.5)
    assert not isinstance(model.layered.open(4), CompiledStaircase)
    tiny.assert_same_text(
        model,
        [1, 2, 3],
        model.generate_plain([1, 2, 3], max_new_tokens=16).token_ids,
        tiny.transformers_greedy(model, [1, 2, 3], 16),
        margin=1e-4,
    )


@pytest.mark.parametrize("where", ["model.layers.1.mlp.down_proj.weight", "lm_head.weight"])
def test_damaged_weights_are_noticed(where: str) -> None:
    """Breaks when a NaN passes the compiled maximum as if it were a low logit."""
    base = copy.deepcopy(tiny.base("llama", dtype=torch.float32))
    with torch.no_grad():
        base.get_parameter(where)[3] = float("nan")
    model = sv.load(base, exit_layers=[2], kernels="compiled")
    with pytest.raises(NonFiniteLogitsError):
        model.generate([1, 2, 3], sv.Settings(threshold=0.0), max_new_tokens=8)
    with pytest.raises(NonFiniteLogitsError):
        model.generate_plain([1, 2, 3], max_new_tokens=8)


@pytest.mark.parametrize(
    ("family", "dtype", "reason"),
    [
        ("gpt2", torch.float32, "not for gpt2"),
        ("gemma2", torch.float32, "not for gemma2"),
        ("llama", torch.float64, "in float32 on a CPU"),
        ("llama biased, rope llama3", torch.float32, "MLPs have biases"),
    ],
)
def test_what_the_kernels_cannot_do_is_left_to_torch(family: str, dtype: torch.dtype, reason: str) -> None:
    """Breaks when a model of another shape is computed as if it were a Llama, or when asking for it gives no reason."""
    base = tiny.base(family, dtype=dtype)
    assert reason in (reason_against(LayeredModel(base)) or "")
    with pytest.raises(sv.SettingsError, match=reason):
        sv.load(base, kernels="compiled")
    assert sv.load(base).layered.compiled is None
    with pytest.raises(sv.SettingsError, match="kernels='fast': use one of auto, compiled, static, torch"):
        sv.load(base, kernels="fast")


def test_the_embedded_model_runs_compiled_unless_told_otherwise(embedded: sv.Model) -> None:
    """Breaks when the model that everyone starts with falls back to the slow path without a word."""
    assert embedded.layered.compiled is not None
    slow = sv.load(device="cpu", kernels="torch")
    assert slow.layered.compiled is None
    assert (
        slow.generate_plain("Once", max_new_tokens=12).token_ids
        == embedded.generate_plain("Once", max_new_tokens=12).token_ids
    )


FIRST_DECODE = """
import numba.core.dispatcher
import selfdraft_viz as sv

compiled = []
was = numba.core.dispatcher.Dispatcher.compile
def compile(self, signature):
    compiled.append(self.py_func.__name__)
    return was(self, signature)
numba.core.dispatcher.Dispatcher.compile = compile
told = []
model = sv.load(progress=lambda *report: told.append(report)) if {told} else sv.load()
while_loading = list(compiled)
trace = model.generate("Once upon a time", max_new_tokens=24)
print(len(while_loading) > 0, compiled == while_loading, len(trace.token_ids), told[-1:])
"""


def test_kernels_are_compiled_before_the_first_decode_and_once(tmp_path: Path) -> None:
    said = []
    for told in (False, True):
        process = subprocess.run(
            [sys.executable, "-c", FIRST_DECODE.format(told=told)],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        said.append((process.stdout.strip(), "Compiling for this processor (once)" in process.stderr))
    assert said == [
        ("True True 24 []", True),
        ("True True 24 [('Reading what was compiled', 1.0, 1.0)]", False),
    ]
