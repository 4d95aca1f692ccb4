"""The floor of a token, near-ties, and their figures."""

from __future__ import annotations

import copy

import plotly.graph_objects as go
import pytest
import tiny
import torch

import selfdraft_viz as sv
from selfdraft_viz.lab.floor import measure_floor, weight_bytes
from selfdraft_viz.lab.near_ties import near_ties
from selfdraft_viz.plots.bench import bench_figure, floor_figure

HOW = sv.Settings(threshold=0.05, max_width=9, schedule=sv.NoAnnealing())


def test_a_token_reads_every_weight_but_the_embedding_table(embedded: sv.Model) -> None:
    """Breaks when tied weights are counted twice, or the compiled kernels' smaller copies are not counted as such."""
    slow = sv.load(device="cpu", kernels="torch")
    assert weight_bytes(slow) == 4 * sum(parameter.numel() for parameter in slow.base.parameters())
    assert weight_bytes(embedded) == pytest.approx(weight_bytes(slow) / 2, rel=0.02)
    model = tiny.load("llama")
    untied = 8 * sum(parameter.numel() for parameter in model.base.parameters())
    assert weight_bytes(model) == untied - 8 * tiny.VOCABULARY * tiny.WIDTH


def test_the_floor_is_below_what_a_token_takes(embedded: sv.Model) -> None:
    """Breaks when the read that is timed is not of the weights' size, or a part of a token is left out."""
    floor = measure_floor(embedded, context=16, repeats=5)
    assert floor.seconds == floor.weight_bytes / floor.bandwidth
    assert set(floor.parts) == {"embedding", "layers", "norm and LM head", "choosing"}
    assert floor.token_seconds > 0.5 * floor.seconds
    figure = floor_figure(floor.to_dict())
    shown = sum(bar.x[0] for bar in figure.data if isinstance(bar, go.Bar) and bar.y[0] == "a token")
    assert shown == pytest.approx(1000 * floor.token_seconds)


def test_near_ties_are_found_where_rounding_is_coarse_and_not_in_fixed_shapes() -> None:
    """Breaks when a difference is missed, or counted where none can be."""
    found = 0
    for family in ("llama", "phi3 sliding", "gpt_neox"):
        model = sv.load(copy.deepcopy(tiny.base(family)).to(torch.bfloat16), exit_layers=[1, 2, 3])
        prompts = [[seed + 3, 5, 7, seed] for seed in range(4)]
        ties = near_ties(model, prompts, HOW, new_tokens=40)
        assert ties.tokens == 160
        assert all(0 <= margin < 0.5 for margin in ties.margins)
        assert ties.per_10000 == 1e4 * len(ties.margins) / 160
        found += len(ties.margins)
        model.layered.fix_shapes(8)
        assert near_ties(model, prompts, HOW, new_tokens=40).margins == ()
    assert found > 0


def test_the_bench_figure_shows_every_ratio_and_none_against_itself() -> None:
    """Breaks when a contender or a kind of text is missing in the figure, or a bar points the wrong way."""
    import pandas as pd

    rows = [
        {"kind": kind, "contender": key, "speed_to_transformers": 2.0, "speed_to_transformers_low": 1.5}
        | {"speed_to_transformers_high": 2.25}
        for kind in ("stories", "python")
        for key in ("transformers", "plain", "self-draft")
    ]
    figure = bench_figure(pd.DataFrame(rows), {"plain": "plain <b>"})
    assert [trace.name for trace in figure.data] == ["plain &lt;b&gt;", "self-draft"]
    assert all(tuple(trace.x) == (2.0, 2.0) for trace in figure.data)
    assert all(tuple(trace.error_x.arrayminus) == (0.5, 0.5) for trace in figure.data)
    assert len({round(y, 3) for trace in figure.data for y in trace.y}) == 4
