"""The staircase holds, for every row, exactly what the whole model computes for it, whatever happened before."""

from __future__ import annotations

import pytest
import strategies
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import selfdraft_viz as sv
from selfdraft_viz.layered import LayerRun, Staircase


@torch.no_grad()
def expected_states(model: sv.Model, token_ids: list[int]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """transformers' own hidden states, (rows, width) for each number of layers run below L, and (rows, vocabulary)
    logits."""
    ids = torch.tensor([token_ids])
    output = model.base(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
    return [states[0] for states in output.hidden_states[:-1]], output.logits[0]


def check(model: sv.Model, staircase: Staircase, token_ids: list[int]) -> None:
    assert staircase.rows == len(token_ids)
    lengths = [staircase.length(layer) for layer in range(model.num_layers + 1)]
    assert lengths == sorted(lengths, reverse=True)
    if not token_ids:
        return
    states, logits = expected_states(model, token_ids)
    for row in range(len(token_ids)):
        depth = staircase.depth(row)
        assert depth == sum(length > row for length in lengths) - 1
        if depth < model.num_layers:
            torch.testing.assert_close(
                staircase.hidden_states(row, row + 1)[0], states[depth][row], rtol=1e-5, atol=1e-5
            )
        else:
            torch.testing.assert_close(staircase.logits(row, row + 1)[0], logits[row], rtol=1e-5, atol=1e-5)


@examples(80)
@given(
    family=st.sampled_from(sorted(tiny.FAMILIES)),
    steps=st.lists(
        st.one_of(
            st.lists(strategies.token_ids, min_size=1, max_size=6),
            st.tuples(st.just("advance"), st.integers(0, 6)),
            st.tuples(st.just("truncate"), st.integers(0, 30)),
        ),
        max_size=14,
    ),
)
def test_rows_are_where_and_what_they_would_be_in_an_ordinary_pass(family: str, steps: list) -> None:
    """Breaks when a row is carried up from the wrong state, sees a key that was thrown away, or misses one that is
    there: any order of pushing, advancing and truncating must do."""
    model = tiny.load(family)
    staircase = model.layered.open(tiny.CONTEXT)
    token_ids: list[int] = []
    for step in steps:
        before = [staircase.length(layer) for layer in range(model.num_layers + 1)]
        if isinstance(step, list):
            step = step[: tiny.CONTEXT - len(token_ids)]
            if step:
                staircase.push(step)
                token_ids += step
        elif step[0] == "advance":
            to_layer = min(step[1], model.num_layers)
            check_runs(staircase.advance(to_layer), before, to_layer)
        else:
            staircase.truncate(step[1])
            token_ids = token_ids[: step[1]]
            assert [staircase.length(layer) for layer in range(model.num_layers + 1)] == [
                min(length, step[1]) for length in before
            ]
    check(model, staircase, token_ids)


def check_runs(runs: list[LayerRun], before: list[int], to_layer: int) -> None:
    """Together the runs cover each layer that lacked rows once, from where it had stopped to the newest row."""
    told = {layer: run for run in runs for layer in range(run.first_layer, run.last_layer + 1)}
    assert sum(run.layer_passes for run in runs) == len(told)
    for layer in range(1, to_layer + 1):
        if before[layer] == before[0]:
            assert layer not in told
        else:
            assert (told[layer].first_position, told[layer].stop_position) == (before[layer], before[0])
            assert told[layer].rows == before[0] - before[layer]
    assert not set(told) - set(range(1, to_layer + 1))


@pytest.mark.parametrize("family", ["llama", "mistral sliding", "gemma3 text", "gpt2"])
@pytest.mark.parametrize("rows", [31, 32, 33, 40])
def test_passes_of_many_rows_have_the_same_mask_as_passes_of_few(family: str, rows: int) -> None:
    """Breaks when the ready-made mask of small passes and the one made for large passes differ, at the size where they
    meet."""
    model = tiny.load(family)
    staircase = model.layered.open(tiny.CONTEXT)
    token_ids = [(11 * i) % tiny.VOCABULARY for i in range(5 + rows)]
    staircase.push(token_ids[:5])
    staircase.advance(model.num_layers)
    staircase.push(token_ids[5:])
    staircase.advance(model.num_layers)
    check(model, staircase, token_ids)


def test_more_rows_than_the_capacity_are_refused() -> None:
    """Breaks when a row is written past the end of the caches."""
    staircase = tiny.load("llama").layered.open(4)
    staircase.push([1, 2, 3])
    with pytest.raises(IndexError, match="5 rows do not fit into a staircase of 4"):
        staircase.push([4, 5])
    assert staircase.rows == 3


def test_nothing_is_allocated_anew_while_decoding() -> None:
    """Breaks when keys and values are concatenated or copied to larger buffers as the text grows."""
    model = tiny.load("llama")
    staircase = model.layered.open(tiny.CONTEXT)
    staircase.push([1, 2, 3])
    staircase.advance(model.num_layers)
    places = [tensor.data_ptr() for tensor in [*staircase._keys, *staircase._values, staircase._hidden]]
    for token_id in range(20):
        staircase.push([token_id])
        staircase.advance(1 + token_id % model.num_layers)
        staircase.truncate(staircase.rows - token_id % 2)
    assert places == [tensor.data_ptr() for tensor in [*staircase._keys, *staircase._values, staircase._hidden]]
