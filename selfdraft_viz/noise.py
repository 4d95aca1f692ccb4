"""Drawing tokens: greedy, or by the Gumbel-max rule with noise that depends on nothing but (seed, position, token).

`argmax(log p + g)` with standard Gumbel noise g is a draw from p (Gumbel 1954; Maddison et al., arXiv 1411.0030).
Because a draft and the true token at a position share g, self-draft sampling gives, token by token, the text that
ordinary sampling with that seed gives. The noise is a counter-based hash and not a generator with a state, so that it
is the same on every device and in every order of computation.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from selfdraft_viz.errors import NonFiniteLogitsError
from selfdraft_viz.settings import Sampling

_MASK64 = (1 << 64) - 1
_MASK32 = 0xFFFFFFFF


class Chooser(Protocol):
    """Chooses tokens from logits."""

    def choose(self, logits: Tensor, first_position: int) -> list[int]:
        """(rows, vocabulary) logits for the tokens at `first_position`, `first_position + 1`, ... -> their ids."""
        ...


class Greedy:
    """The most likely token; the lowest id where two are equally likely."""

    def choose(self, logits: Tensor, first_position: int) -> list[int]:
        best, token_ids = logits.max(dim=-1)
        _check_finite(best, first_position)
        return token_ids.tolist()


class GumbelSampler:
    """Draws with `Sampling`'s temperature, top-k, top-p and seed. One belongs to one decode."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._noise: dict[int, Tensor] = {}  # by position; the positions of the round at hand

    def choose(self, logits: Tensor, first_position: int) -> list[int]:
        _check_finite(logits.amax(dim=-1), first_position)
        noise = torch.stack([self._noise_at(first_position + row, logits) for row in range(logits.shape[0])])
        return (process_logits(logits, self._sampling) + noise).argmax(dim=-1).tolist()

    def _noise_at(self, position: int, logits: Tensor) -> Tensor:
        if position not in self._noise:
            for old in [old for old in self._noise if old < position - 64]:
                del self._noise[old]
            self._noise[position] = gumbel_noise(self._sampling.seed, position, logits.shape[-1], logits.device)
        return self._noise[position]


def chooser_for(sampling: Sampling | None) -> Chooser:
    """Greedy without a `Sampling`."""
    return Greedy() if sampling is None else GumbelSampler(sampling)


def process_logits(logits: Tensor, sampling: Sampling) -> Tensor:
    """Temperature, then top-k, then top-p, as transformers' warpers apply them.

    Args:
        logits: (rows, vocabulary), any floating dtype.
        sampling: what to apply.

    Returns:
        (rows, vocabulary) float64; -inf where a token is not kept.
    """
    scores = logits.double() / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < scores.shape[-1]:
        kth = scores.topk(sampling.top_k, dim=-1).values[..., -1:]
        scores = scores.masked_fill(scores < kth, float("-inf"))
    if sampling.top_p is not None and sampling.top_p < 1:
        ordered, order = scores.sort(dim=-1)  # ascending, so that the tail is cut by its own total
        tail = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - sampling.top_p
        tail[..., -1] = False
        scores = scores.masked_fill(tail.scatter(-1, order, tail), float("-inf"))
    return scores


def gumbel_noise(seed: int, position: int, vocab_size: int, device: torch.device | str = "cpu") -> Tensor:
    """(vocabulary,) float64 standard Gumbel noise for the token drawn at `position`, the same on every device."""
    key = _splitmix64(_splitmix64(seed) ^ position)
    bits = torch.arange(vocab_size, device=device, dtype=torch.int64)
    bits = _mix32(bits ^ (key & _MASK32))
    bits = _mix32((bits + (key >> 32)) & _MASK32)
    uniform = (bits.double() + 0.5) / 2.0**32  # in (0, 1), both ends left out
    return -torch.log(-torch.log(uniform))


def _splitmix64(state: int) -> int:
    """One output of the splitmix64 generator (Steele, Lea & Flood, OOPSLA 2014)."""
    state = (state + 0x9E3779B97F4A7C15) & _MASK64
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK64
    return state ^ (state >> 31)


def _mix32(bits: Tensor) -> Tensor:
    """MurmurHash3's 32-bit finalizer (Appleby, public domain), on 32-bit values held in int64."""
    bits = bits ^ (bits >> 16)
    bits = (bits * 0x85EBCA6B) & _MASK32
    bits = bits ^ (bits >> 13)
    bits = (bits * 0xC2B2AE35) & _MASK32
    return bits ^ (bits >> 16)


def _check_finite(best: Tensor, first_position: int) -> None:
    finite = torch.isfinite(best)
    if not finite.all():
        row = int((~finite).nonzero()[0])
        raise non_finite_logits(first_position + row, "its last layer")


def non_finite_logits(position: int, where: str) -> NonFiniteLogitsError:
    return NonFiniteLogitsError(
        f"the model gave NaN or infinite logits at {where} for the token at position {position}: its weights are "
        "damaged or overflow in this dtype; load it again, or in float32 (dtype='float32')"
    )
