"""Records of small models, made once, and prices for them, for the tests of the lab."""

from __future__ import annotations

from functools import cache

import numpy as np
import tiny
import torch

import selfdraft_viz as sv
from selfdraft_viz.lab.costs import PARTS, Costs
from selfdraft_viz.lab.record import DenseRecord, record

NEW_TOKENS = 30


@cache
def records(seed: int = 0, texts: int = 4) -> dict[str, DenseRecord]:
    """Two kinds of the model's own continuations; prompts of 3 tokens, NEW_TOKENS new ones."""
    model = tiny.load("llama", exit_layers=[1, 2, 3], seed=seed)
    made = {}
    for kind, first in (("low", 1), ("high", 50)):
        traces = [model.generate_plain([first, text, 7], max_new_tokens=NEW_TOKENS) for text in range(texts)]
        ids = [[*trace.prompt_ids, *trace.token_ids][:-1] for trace in traces]
        made[kind] = record(model, torch.tensor(ids), start=3)
    return made


def model(seed: int = 0) -> sv.Model:
    return tiny.load("llama", exit_layers=[1, 2, 3], seed=seed)


def costs(repeats: int = 3, **changes: float) -> Costs:
    """Prices in milliseconds, a little different in each repeat; ordinary decoding costs 5 layers and a head."""
    prices = {"layer": 1.0, "second_row": 0.1, "further_row": 0.05, "run": 0.05, "exit_check": 0.3, "head": 1.0,
              "head_row": 0.02, "first_check": 0.1, "draft": 0.1, "round": 0.1, **changes}  # fmt: skip
    row = np.array([prices[part] for part in PARTS]) / 1000
    scatter = 1 + 0.01 * (np.arange(repeats) - (repeats - 1) / 2)
    plain = np.full(repeats, (5 * prices["layer"] + prices["head"]) / 1000)
    return Costs(row * scatter[:, None], plain, 5, {"processor": "an abacus", "threads": 1})
