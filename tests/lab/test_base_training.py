"""A base model trains from scratch, stops, goes on, and comes out as one that loads and drafts."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import selfdraft_viz as sv
from selfdraft_viz.lab import base_training

SMALL = ["--layers", "3", "--width", "32", "--heads", "4", "--kv-heads", "2", "--mlp", "48", "--batch", "2"]
SMALL += ["--window", "24", "--device", "cpu", "--learning-rate", "0.01"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for kind in ("stories", "tales", "python"):
        with lzma.open(tmp_path / f"train_{kind}.jsonl.xz", "wt", encoding="utf-8") as lines:
            for number in range(4):
                lines.write(json.dumps({"text": f"Once upon a time there were {number} {kind}. " * 8}) + "\n")
    return tmp_path


def test_a_run_goes_on_where_it_was_and_its_model_loads(corpus: Path, tmp_path: Path) -> None:
    """Breaks when a stopped run starts anew, its time is not counted, or what it saves is no model folder."""
    output = tmp_path / "model"
    first = CliRunner().invoke(base_training.app, [str(corpus), str(output), "--minutes", "0.02", *SMALL])
    assert first.exit_code == 0, first.output
    before = torch.load(output / "training.pt", weights_only=True)
    second = CliRunner().invoke(base_training.app, [str(corpus), str(output), "--minutes", "0.04", *SMALL])
    assert f"from step {before['step']} at 1 s" in second.output
    assert torch.load(output / "training.pt", weights_only=True)["step"] > before["step"]
    model = sv.load(output, device="cpu", exit_layers=[1, 2], dtype="float32")
    settings = sv.Settings(threshold=0.05, schedule=sv.NoAnnealing())
    assert model.compare("Once upon a time", settings, max_new_tokens=16).equal


def test_the_learning_rate_rises_and_falls() -> None:
    """Breaks when a run ends at its peak rate, or starts with a jump."""
    rates = [base_training.rate_at(share / 100) for share in range(101)]
    assert rates[0] < 0.1
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[-1] == pytest.approx(0.1)
    assert rates[3:] == sorted(rates[3:], reverse=True)
