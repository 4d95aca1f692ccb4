"""Models that accelerate spreads over a CPU and a disk: every layer runs where it is to run, on its own weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

import selfdraft_viz as sv
from selfdraft_viz.heads import describe_base

pytest.importorskip("accelerate")

HOW = sv.Settings(threshold=0.1, max_width=7, schedule=sv.NoAnnealing())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.base("llama", dtype=torch.float32).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def offloaded(base: torch.nn.Module, where: str, folder: Path) -> torch.nn.Module:
    """Some layers kept in memory or on disk, brought in for each pass."""
    from accelerate import cpu_offload, disk_offload

    if where == "cpu":
        return cpu_offload(base, execution_device=torch.device("cpu"))
    return disk_offload(base, folder / "offload", execution_device=torch.device("cpu"))


@pytest.mark.parametrize("where", ["cpu", "disk"])
@pytest.mark.parametrize("family", ["llama", "llama tied, one key-value head", "gemma3 text", "gpt2", "gpt_neox"])
def test_an_offloaded_model_says_what_it_says_in_memory(family: str, where: str, tmp_path: Path) -> None:
    """Breaks when a pass reads a weight that is not there, or hidden states lie on another device than the layer."""
    import copy

    plain = tiny.load(family, exit_layers=[1, 2])
    base = offloaded(copy.deepcopy(tiny.base(family)), where, tmp_path)
    model = sv.load(base, exit_layers=[1, 2])  # type: ignore[arg-type]
    assert model.layered.spread
    assert model.device == torch.device("cpu")
    assert describe_base(model.layered) == describe_base(plain.layered)
    expected = plain.generate_plain([3, 1, 4], max_new_tokens=10).token_ids
    assert model.generate_plain([3, 1, 4], max_new_tokens=10).token_ids == expected
    assert model.generate([3, 1, 4], HOW, max_new_tokens=10).token_ids == expected
    reduced = model.with_heads(sv.ExitHeads([1, 2], None, None, torch.arange(0, 60)))
    assert reduced.generate([3, 1, 4], HOW, max_new_tokens=10).token_ids == expected
    with pytest.raises(sv.SettingsError, match="need the whole model on one device"):
        sv.load(base, kernels="static")  # type: ignore[arg-type]


def test_a_device_map_puts_layers_on_disk(folder: Path, tmp_path: Path) -> None:
    """Breaks when the options do not reach transformers, or what is on disk is not found again."""
    expected = sv.load(folder, device="cpu", exit_layers=[1, 2]).generate_plain([3, 1, 4], max_new_tokens=10).token_ids
    spread = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    spread |= {f"model.layers.{index}": "disk" if index % 2 else "cpu" for index in range(5)}
    model = sv.load(folder, device_map=spread, offload_folder=tmp_path / "offload", dtype="float32", exit_layers=[1, 2])
    assert model.layered.spread
    assert model.generate([3, 1, 4], HOW, max_new_tokens=10).token_ids == expected


def test_a_device_map_of_one_device_is_a_model_like_any_other(folder: Path) -> None:
    """Breaks when a map that spreads nothing costs the fast kernels."""
    model = sv.load(folder, device_map={"": "cpu"}, dtype="float32")
    assert not model.layered.spread
    assert model.generate_plain([3, 1, 4], max_new_tokens=4).token_ids
