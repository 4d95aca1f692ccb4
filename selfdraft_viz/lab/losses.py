"""The losses of exit heads, each with its gradient in the logits, which takes the logits' own place.

Over a vocabulary of 150,000 tokens a few rows of logits are hundreds of MiB, and autograd would keep the logits, their
log-softmax and two gradients at once. Both losses have gradients of one line, softmax minus goal.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def cross_entropy_(logits: Tensor, target: Tensor, counted: Tensor, vocabulary: Tensor | None) -> Tensor:
    """Cross-entropy, and its gradient.

    Args:
        logits: (rows, tokens) float32; overwritten with the gradient of the summed loss.
        target: (rows,) token ids. Where one is not in the heads' vocabulary, the goal is spread evenly: the head should
            be unsure.
        counted: (rows,) bool; the other rows have no loss and no gradient.
        vocabulary: (tokens,) the token ids of the columns, ascending; None = all.

    Returns:
        () the loss, summed over rows.
    """
    column, known = target, counted
    if vocabulary is not None:
        vocabulary = vocabulary.to(target.device)
        column = torch.searchsorted(vocabulary, target).clamp_(max=len(vocabulary) - 1)
        known = counted & (vocabulary[column] == target)
    column = torch.where(known, column, 0)[:, None]
    wanted = logits.gather(-1, column)[:, 0]
    if vocabulary is not None:
        wanted = torch.where(known, wanted, logits.mean(dim=-1))
        even = torch.where(known, 0.0, 1.0 / logits.shape[1])[:, None]
    normalizer = _softmax_(logits)
    logits.scatter_add_(-1, column, -known.to(logits.dtype)[:, None])
    if vocabulary is not None:
        logits.sub_(even)
    logits.mul_(counted[:, None])
    return torch.where(counted, normalizer - wanted, 0.0).sum()


class Goal:
    """The final layer's distribution over the heads' vocabulary, which KL divergence is measured from.

    Args:
        final_logits: (rows, vocabulary); may be overwritten.
        vocabulary: (tokens,) the token ids that the heads draft; None = all.
    """

    @torch.no_grad()
    def __init__(self, final_logits: Tensor, vocabulary: Tensor | None) -> None:
        if vocabulary is not None:
            final_logits = final_logits[:, vocabulary.to(final_logits.device)]
        self._probabilities = final_logits.float()
        wanted = self._probabilities.clone()
        normalizer = _softmax_(self._probabilities)
        wanted.sub_(normalizer[:, None])
        self._negative_entropy = _row_products(self._probabilities, wanted)

    @torch.no_grad()
    def divergence_(self, logits: Tensor) -> Tensor:
        """KL(final || head), summed over rows; `logits`, (rows, tokens) float32, become its gradient."""
        expected = _row_products(self._probabilities, logits)
        normalizer = _softmax_(logits)
        logits.sub_(self._probabilities)
        return (self._negative_entropy - expected + normalizer).sum()


def _softmax_(logits: Tensor) -> Tensor:
    """(rows, tokens) logits become probabilities. Returns their (rows,) log-partition."""
    best = logits.amax(dim=-1, keepdim=True)
    total = logits.sub_(best).exp_().sum(dim=-1, keepdim=True)
    logits.div_(total)
    return (best + total.log())[:, 0]


def _row_products(a: Tensor, b: Tensor) -> Tensor:
    """(rows, tokens) twice -> (rows,) inner products, without a third such tensor."""
    return torch.bmm(a[:, None, :], b[:, :, None])[:, 0, 0]
