"""The losses of exit heads against torch's own, and how many logits training keeps at a time."""

from __future__ import annotations

from typing import Literal

import pytest
import tiny
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import selfdraft_viz as sv
from selfdraft_viz.lab.losses import Goal, cross_entropy_

ROWS, TOKENS = 7, 40


def logits(seed: int, tokens: int = TOKENS) -> Tensor:
    return 4 * torch.randn(ROWS, tokens, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[None, [1, 3, 4, 20, 39]], ids=["all tokens", "some tokens"])
def vocabulary(request: pytest.FixtureRequest) -> Tensor | None:
    return None if request.param is None else torch.tensor(request.param)


def test_cross_entropy_and_its_gradient_are_torchs(vocabulary: Tensor | None) -> None:
    """Breaks when training goes downhill on something else than the loss that it reports."""
    head = logits(0, TOKENS if vocabulary is None else len(vocabulary)).requires_grad_()
    target = torch.tensor([3, 0, 20, 39, 38, 2, 3])
    counted = torch.tensor([True, True, False, True, True, True, True])
    goal = F.one_hot(target, TOKENS).float()
    if vocabulary is not None:
        goal = goal[:, vocabulary]
        goal = torch.where(goal.sum(dim=-1, keepdim=True) == 0, 1 / len(vocabulary), goal)
    expected = F.cross_entropy(head[counted], goal[counted], reduction="sum")
    expected.backward()
    ours = head.detach().clone()
    torch.testing.assert_close(cross_entropy_(ours, target, counted, vocabulary), expected.detach())
    torch.testing.assert_close(ours, head.grad)


def test_a_row_without_a_next_token_counts_nothing(vocabulary: Tensor | None) -> None:
    """Breaks when the padding behind the last token is a target."""
    ours = logits(0, TOKENS if vocabulary is None else len(vocabulary))
    none = torch.zeros(ROWS, dtype=torch.bool)
    assert cross_entropy_(ours, torch.full((ROWS,), -1), none, vocabulary) == 0
    assert not ours.any()


def test_divergence_and_its_gradient_are_torchs(vocabulary: Tensor | None) -> None:
    """Breaks when the tuned lens's loss, or its gradient, is another one."""
    final = logits(1)
    goal = (final if vocabulary is None else final[:, vocabulary]).log_softmax(dim=-1)
    ours = Goal(final.clone(), vocabulary)
    for seed in (2, 3):  # one goal for every exit
        head = logits(seed, goal.shape[1]).requires_grad_()
        expected = F.kl_div(head.log_softmax(dim=-1), goal, log_target=True, reduction="sum")
        expected.backward()
        gradient = head.detach().clone()
        torch.testing.assert_close(ours.divergence_(gradient), expected.detach())
        torch.testing.assert_close(gradient, head.grad, atol=1e-6, rtol=1e-4)


class LogitsAlive(TorchDispatchMode):
    """The most storages of (rows, vocabulary) that lived at the same time, forwards and backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.most, self.rows, self._seen = 0, 0, dict[int, StorageWeakRef]()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor) and self._are_logits(tensor):
                self.rows = max(self.rows, tensor.numel() // tiny.VOCABULARY)
                reference = StorageWeakRef(tensor.untyped_storage())
                self._seen[reference.cdata] = reference
        self._seen = {key: one for key, one in self._seen.items() if not one.expired()}
        self.most = max(self.most, len(self._seen))
        return made

    @staticmethod
    def _are_logits(tensor: Tensor) -> bool:
        of_vocabulary = tensor.is_floating_point() and tensor.shape[-1:] == (tiny.VOCABULARY,)
        return of_vocabulary and tensor.numel() > tiny.VOCABULARY * tiny.WIDTH  # which the unembedding has


@pytest.mark.parametrize(("loss", "most"), [("argmax", 1), ("text", 1), ("kl", 2)])
def test_one_exits_logits_of_some_rows_are_held_at_a_time(
    monkeypatch: pytest.MonkeyPatch, loss: Literal["argmax", "text", "kl"], most: int
) -> None:
    """Breaks when a vocabulary of 150,000 tokens fills the memory: with copies, with the logits of other exits, of the
    whole batch, or, but for KL, which needs them, of the final layer."""
    monkeypatch.setattr("selfdraft_viz.lab.training._LOGITS_AT_ONCE", 40 * tiny.VOCABULARY)
    model = sv.load(tiny.base("llama", 3, torch.float32), exit_layers=[1, 2, 3])
    windows = torch.randint(tiny.VOCABULARY, (16, 24), generator=torch.Generator().manual_seed(0))
    with LogitsAlive() as logits:
        sv.train_exit_heads(
            model, windows[4:], validation=windows[:4], loss=loss, steps=2, batch_size=8, window=24, progress=False
        )
    assert (logits.rows, logits.most) == (40, most)
