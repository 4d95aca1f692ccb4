"""Passes of a fixed shape: the same bits in any company, in bfloat16 too; and graphs, as far as a CPU can try them."""

from __future__ import annotations

import copy
import gc

import pytest
import strategies
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import selfdraft_viz as sv
from selfdraft_viz.layered import LayeredModel
from selfdraft_viz.layered.static import Graphed, StaticStaircase

EAGER = sv.Settings(threshold=0.1, max_width=11, schedule=sv.NoAnnealing())


def static(family: str, dtype: torch.dtype, rows: int = 8) -> sv.Model:
    model = sv.load(copy.deepcopy(tiny.base(family)).to(dtype), exit_layers=[1, 2, 3])
    model.layered.fix_shapes(rows)
    return model


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_selfdraft_and_plain_are_bitwise_equal_in_bfloat16(family: str) -> None:
    """Breaks when a row's arithmetic depends on how many rows, or which, it is computed with."""
    model = static(family, torch.bfloat16)
    for seed in range(2):
        prompt = [seed + 3, 5, 7, *range(9 * seed)]
        plain, drafted = _logits_of_both(model, prompt, 30)
        assert torch.equal(plain, drafted)


def _logits_of_both(model: sv.Model, prompt: list[int], new: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits that decide each token of the same text: one row at a time, and in rounds that carry rows up from
    different layers, with wrong drafts among them."""
    text = model.generate_plain(prompt, max_new_tokens=new).token_ids
    tokens, layers = [*prompt, *text], model.num_layers
    one, rounds = model.layered.open(len(tokens) + 8), model.layered.open(len(tokens) + 8)
    for staircase in (one, rounds):
        staircase.push(prompt)
        staircase.advance(layers)
    alone, together = [], []
    for position in range(len(prompt), len(tokens)):
        one.push([tokens[position]])
        one.advance(layers)
        alone.append(one.logits(position, position + 1).clone())
    start = len(prompt)
    while start < len(tokens):
        width = 1 + (5 * start) % 11
        right = tokens[start : start + width]
        for index, token in enumerate([*right, 1, 2]):  # two wrong drafts at the end
            rounds.push([token])
            rounds.advance(1 + (start + index) % 3)
        rounds.advance(layers)
        together.append(rounds.logits(start, start + len(right)).clone())
        start += len(right)
        rounds.truncate(start)
    return torch.cat(alone), torch.cat(together)


@examples(40)
@given(
    family=st.sampled_from(sorted(tiny.FAMILIES)),
    prompt=st.one_of(strategies.prompts, strategies.long_prompts),
    rows=st.integers(2, 9),
    threshold=st.sampled_from([0.05, 0.2, 0.6]),
)
def test_texts_in_fixed_shapes_are_those_of_transformers(
    family: str, prompt: list[int], rows: int, threshold: float
) -> None:
    """Breaks when a row stands in another's place, sees a key that it must not, or writes where another reads."""
    model = static(family, torch.float64, rows)
    new = min(16, tiny.CONTEXT - len(prompt))
    theirs = tiny.transformers_greedy(model, prompt, new)
    assert isinstance(model.layered.open(8), StaticStaircase)
    plain = model.generate_plain(prompt, max_new_tokens=new).token_ids
    tiny.assert_same_text(model, prompt, plain, theirs)
    drafted = model.generate(prompt, EAGER.replace(threshold=threshold), max_new_tokens=new).token_ids
    assert drafted == plain


def test_buffers_go_from_one_decode_to_the_next_but_not_between_two_open_ones() -> None:
    """Breaks when two decodes write into one cache, when buffers pile up, or when what the last decode left shows."""
    model = static("llama", torch.float64)
    expected = model.generate_plain([1, 2, 3], max_new_tokens=12).token_ids
    gc.collect()
    (kept,) = model.layered.idle_buffers
    with torch.inference_mode():
        kept.keys[0].fill_(float("nan"))
    first, second = (model.stream_plain([1, 2, 3], max_new_tokens=12) for _ in range(2))
    tokens: list[list[int]] = [[], []]
    for events in zip(first, second, strict=True):
        for which, event in enumerate(events):
            if isinstance(event, sv.events.Committed):
                tokens[which].append(event.token_id)
    assert tokens == [expected, expected]
    del first, second, events, event
    gc.collect()
    assert len(model.layered.idle_buffers) == 1


def test_on_a_cpu_a_graph_is_a_call() -> None:
    """Breaks when the code around CUDA graphs cannot run without CUDA."""
    seen = []
    graphed = Graphed(lambda: seen.append(1), torch.device("cpu"))
    for _ in range(5):
        graphed()
    assert len(seen) == 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_graphs_on_cuda_give_bitwise_what_plain_decoding_gives(dtype: str) -> None:
    """Breaks when a graph reads a tensor that has moved, or misses what the host wrote for a pass."""
    model = sv.load(device="cuda", dtype=dtype)
    assert model.layered.static_rows is not None
    for prompt in ("Once upon a time", "def main():", "The old king"):
        assert model.compare(prompt, max_new_tokens=128).equal


def test_what_cannot_be_is_refused() -> None:
    """Breaks when a fixed shape of one row, whose kernels differ, or a contradiction is accepted."""
    with pytest.raises(sv.SettingsError, match="rows=1: use at least 2"):
        LayeredModel(tiny.base("llama")).fix_shapes(1)
    with pytest.raises(sv.SettingsError, match="kernels='torch' with bitwise=True"):
        sv.load(kernels="torch", bitwise=True)


def test_bitwise_picks_kernels_that_are() -> None:
    """Breaks when the mode is asked for, and nothing is different."""
    assert sv.load(tiny.base("llama"), bitwise=True).layered.static_rows is not None
    pytest.importorskip("numba")
    assert sv.load(tiny.base("llama", dtype=torch.float32), bitwise=True).layered.compiled is not None
