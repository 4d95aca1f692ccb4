"""Packed linear layers compute what the ordinary ones do, and never anything that is out of date."""

from __future__ import annotations

import copy
import pickle

import pytest
import tiny
import torch
from torch import nn
from torch.nn import functional as F

from selfdraft_viz.layered.kernels import PackedLinear, _available, pack_linears

pytestmark = pytest.mark.skipif(not _available(), reason="this torch has no packed linear kernel")


def linear(rows_in: int = 24, rows_out: int = 40, bias: bool = True) -> nn.Linear:
    torch.manual_seed(3)
    layer = nn.Linear(rows_in, rows_out, bias=bias)
    assert pack_linears(layer) == 1
    assert isinstance(layer, PackedLinear)
    return layer


@torch.inference_mode()
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1,), (2,), (7,), (16,), (33,), (1, 5), (2, 3, 4)])
def test_a_packed_layer_computes_what_an_ordinary_one_does(shape: tuple[int, ...], bias: bool) -> None:
    """Breaks when a row count, a bias or a batch dimension is treated otherwise by the packed kernel."""
    layer = linear(bias=bias)
    rows = torch.randn(*shape, 24)
    torch.testing.assert_close(layer(rows), F.linear(rows, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)


def test_packing_leaves_parameters_and_gradients_as_they_are() -> None:
    """Breaks when a packed model is saved with other names, or can no longer be trained."""
    layer = linear()
    assert set(layer.state_dict()) == {"weight", "bias"}
    rows = torch.randn(3, 24, requires_grad=True)
    layer(rows).sum().backward()
    torch.testing.assert_close(rows.grad, layer.weight.detach().sum(dim=0).expand(3, -1))
    assert layer.weight.grad is not None


def test_only_float32_layers_on_a_cpu_are_packed_and_none_that_are_too_large() -> None:
    """Breaks when memory is doubled where it does not help, or a kernel gets a dtype that it cannot take."""
    assert pack_linears(nn.Linear(8, 8).double()) == 0
    assert pack_linears(nn.Linear(8, 8).bfloat16()) == 0
    assert pack_linears(nn.Linear(64, 64), most_bytes=1000) == 0
    assert pack_linears(nn.ReLU()) == 0
    mixed = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8).double())
    assert pack_linears(mixed) == 0
    again = linear()
    assert pack_linears(again) == 0, "packed twice"


@torch.inference_mode(False)
@torch.no_grad()
def test_a_changed_moved_or_copied_layer_computes_with_its_own_weight() -> None:
    """Breaks when a packed copy outlives the weight that it was made of: a model fine-tuned, or converted, after
    loading would go on decoding with its old weights."""
    rows = torch.randn(3, 24)
    layer = linear()
    layer.weight.mul_(2.0)
    torch.testing.assert_close(layer(rows), F.linear(rows, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)
    layer = linear()
    layer.load_state_dict({"weight": torch.ones(40, 24), "bias": torch.zeros(40)})
    torch.testing.assert_close(layer(rows), rows.sum(dim=1, keepdim=True).expand(-1, 40), rtol=1e-5, atol=1e-5)
    layer = linear().to(torch.bfloat16)
    expected = F.linear(rows.bfloat16(), layer.weight, layer.bias)
    torch.testing.assert_close(layer(rows.bfloat16()), expected)
    layer = linear()
    layer.weight = nn.Parameter(layer.weight * 3.0)
    torch.testing.assert_close(layer(rows), F.linear(rows, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)
    for layer in (copy.deepcopy(linear()), pickle.loads(pickle.dumps(linear()))):
        assert type(layer) is nn.Linear
        torch.testing.assert_close(layer(rows), F.linear(rows, linear().weight, linear().bias), rtol=1e-5, atol=1e-5)
    layer = copy.deepcopy(linear())
    layer.weight.zero_()
    torch.testing.assert_close(layer(rows), F.linear(rows, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_a_packed_model_gives_the_same_logits() -> None:
    """Breaks when packing a whole model changes what it says by more than the last bits."""
    plain = copy.deepcopy(tiny.base("llama", dtype=torch.float32))
    packed = copy.deepcopy(plain)
    assert pack_linears(packed) == 1 + 7 * 5
    ids = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(packed(input_ids=ids).logits, plain(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
