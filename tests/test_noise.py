"""Drawing tokens: the noise is Gumbel's, depends on nothing but its key, and the draws follow the distribution."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import examples
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

import selfdraft_viz as sv
from selfdraft_viz.noise import Greedy, GumbelSampler, chooser_for, gumbel_noise, process_logits

seeds = st.integers(0, 2**63 - 1)
positions = st.integers(0, 200_000)


@given(seed=seeds, position=positions, small=st.integers(1, 50), large=st.integers(50, 3000))
def test_the_noise_of_a_token_depends_on_seed_position_and_token_alone(
    seed: int, position: int, small: int, large: int
) -> None:
    """Breaks when a vocabulary padded to another size, or the order of computation, changes a text."""
    noise = gumbel_noise(seed, position, large)
    assert noise.dtype == torch.float64
    assert torch.isfinite(noise).all()
    assert torch.equal(noise, gumbel_noise(seed, position, large))
    assert torch.equal(noise[:small], gumbel_noise(seed, position, small))


@given(seed=seeds, position=positions, other=positions)
def test_noise_differs_between_positions_and_between_seeds(seed: int, position: int, other: int) -> None:
    """Breaks when the draws of one text are copies of each other."""
    assume(position != other)
    here = gumbel_noise(seed, position, 64)
    assert (here == gumbel_noise(seed, other, 64)).sum() <= 1
    assert (here == gumbel_noise(seed ^ 1, position, 64)).sum() <= 1
    assert (here == gumbel_noise(position, seed, 64)).sum() <= 1 or seed == position


@pytest.mark.parametrize("along", ["token", "position", "seed"])
def test_noise_is_standard_gumbel_along_tokens_positions_and_seeds(along: str) -> None:
    """Breaks when the hash is not uniform or the transform is not -log(-log u): draws would be biased. Mean Euler's
    constant, variance pi^2 / 6, and a Kolmogorov-Smirnov distance that true Gumbel noise stays under (99.9 %)."""
    count = 10_000
    if along == "token":
        noise = gumbel_noise(11, 5, count)
    elif along == "position":
        noise = torch.stack([gumbel_noise(11, position, 3)[2] for position in range(count)])
    else:
        noise = torch.stack([gumbel_noise(seed, 7, 3)[1] for seed in range(count)])
    assert noise.mean().item() == pytest.approx(0.5772156649, abs=0.04)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.12)
    uniform = torch.exp(-torch.exp(-noise)).sort().values
    steps = torch.arange(1, count + 1, dtype=torch.float64) / count
    assert (uniform - steps).abs().max() < 1.95 / math.sqrt(count)


def test_noise_of_neighbouring_keys_is_uncorrelated() -> None:
    """Breaks when two positions of a text, or two tokens, are drawn with related noise."""
    table = torch.stack([gumbel_noise(3, position, 2000) for position in range(12)])
    correlations = torch.corrcoef(table) - torch.eye(12, dtype=torch.float64)
    assert correlations.abs().max() < 4.5 / math.sqrt(2000)
    lagged = torch.corrcoef(torch.stack([table[:, :-1].flatten(), table[:, 1:].flatten()]))[0, 1]
    assert lagged.abs() < 4.5 / math.sqrt(table.numel())


def test_no_two_positions_have_the_same_noise_in_another_order() -> None:
    """Breaks when tokens and keys are only xor-ed: of 1500 positions some would then share their noise, shuffled."""
    highest = {tuple(gumbel_noise(3, position, 2**14).topk(3).values.tolist()) for position in range(1500)}
    assert len(highest) == 1500


@pytest.mark.parametrize(
    "sampling",
    [
        sv.Sampling(seed=1),
        sv.Sampling(temperature=0.5, seed=2),
        sv.Sampling(top_k=4, seed=3),
        sv.Sampling(top_p=0.8, seed=4),
    ],
    ids=str,
)
def test_draws_come_as_often_as_softmax_says(sampling: sv.Sampling) -> None:
    """Breaks when sampling is biased: chi-square of 10 000 draws at as many positions, against the processed
    softmax."""
    logits = torch.tensor([[2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0]], dtype=torch.float64)
    draws = 10_000
    counts = torch.zeros(8, dtype=torch.float64)
    sampler = GumbelSampler(sampling)
    for position in range(0, draws, 100):
        for token_id in sampler.choose(logits.expand(100, -1), position):
            counts[token_id] += 1
    expected = process_logits(logits, sampling).softmax(dim=-1)[0] * draws
    kept = expected > 0
    assert counts[~kept].sum() == 0
    chi_square = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
    degrees = int(kept.sum()) - 1
    assert chi_square < degrees + 4.5 * math.sqrt(2 * degrees)


@given(seed=seeds, first=st.integers(0, 1000), rows=st.integers(1, 12), data=st.data())
def test_a_row_is_drawn_alike_alone_and_among_others(seed: int, first: int, rows: int, data: st.DataObject) -> None:
    """Breaks when verification, which draws many rows at once, draws otherwise than drafting does."""
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    logits = torch.randn(rows, 40, generator=generator, dtype=torch.float64) * 3
    sampling = sv.Sampling(temperature=0.9, top_p=0.9, top_k=20, seed=seed)
    together = GumbelSampler(sampling).choose(logits, first)
    alone = [GumbelSampler(sampling).choose(logits[row : row + 1], first + row)[0] for row in range(rows)]
    assert together == alone


@examples(150)
@given(
    temperature=st.floats(0.05, 5.0),
    top_k=st.none() | st.integers(1, 40),
    top_p=st.none() | st.floats(0.01, 1.0),
    seed=st.integers(0, 10_000),
    spread=st.floats(0.1, 8.0),
)
def test_processing_is_that_of_transformers_warpers(
    temperature: float, top_k: int | None, top_p: float | None, seed: int, spread: float
) -> None:
    """Breaks when sampling with a temperature, top-k or top-p means something else here than everywhere else."""
    logits = torch.randn(3, 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * spread
    expected = TemperatureLogitsWarper(temperature)(None, logits)
    if top_k is not None:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p is not None and top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    ours = process_logits(logits, sv.Sampling(temperature=temperature, top_k=top_k, top_p=top_p))
    assert torch.equal(torch.isfinite(ours), torch.isfinite(expected))
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_greedy_takes_the_lowest_id_of_a_tie() -> None:
    """Breaks when a tie falls differently in drafting and in verification, which see other row counts."""
    logits = torch.zeros(5, 1000)
    logits[:, [3, 500, 999]] = 1.0
    assert Greedy().choose(logits, 0) == [3] * 5
    assert Greedy().choose(logits[:1], 0) == [3]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("sampling", [None, sv.Sampling(seed=1)], ids=["greedy", "sampled"])
def test_logits_that_are_not_finite_are_refused_with_their_position(bad: float, sampling: sv.Sampling | None) -> None:
    """Breaks when NaN logits come out as token 0 and nobody hears of it."""
    logits = torch.zeros(3, 10, dtype=torch.float64)
    logits[1, 4] = bad
    with pytest.raises(sv.NonFiniteLogitsError, match=r"position 8.*dtype='float32'"):
        chooser_for(sampling).choose(logits, 7)
    logits[1, 4] = -math.inf  # a token that is ruled out is no damage
    assert len(chooser_for(sampling).choose(logits, 7)) == 3
