"""The dashboard shows what the tables say, from a trace as from columns, and needs neither torch nor widgets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
import tiny

import selfdraft_viz as sv
from selfdraft_viz import plots
from selfdraft_viz.plots.confidence import threshold_steps
from selfdraft_viz.plots.dashboard import blank_dashboard, dashboard_data
from selfdraft_viz.plots.outlines import outlines
from selfdraft_viz.plots.rounds import rounds_data
from selfdraft_viz.plots.speed import tokens_per_second
from selfdraft_viz.plots.style import nice_ceiling


@pytest.fixture(scope="module")
def comparison() -> sv.Comparison:
    model = tiny.load("llama", exit_layers=[1, 2, 3])
    return model.compare([3, 1, 4, 1, 5], sv.Settings(threshold=0.2, max_width=4), max_new_tokens=50)


def test_every_new_token_has_a_bar_of_its_depth(comparison: sv.Comparison) -> None:
    trace = comparison.selfdraft
    new = trace.tokens[trace.tokens["kind"] != "prompt"]
    shown = _by_name(plots.dashboard(trace))
    met = shown["exit depth"]
    tops = {int(x): int(depth) for x, y, depth in zip(met.x, met.y, met.customdata, strict=True) if y == depth}
    assert tops == dict(zip(new["position"], new["exit_depth"], strict=True))
    for depth in new["exit_depth"].unique():
        x, y = _corners(shown[f"depth {depth}"])
        assert set(y.ravel()) == {0, depth}
        covered = [place for left, right in _spans(x, y) for place in range(round(left + 0.5), round(right + 0.5))]
        assert covered == list(new.loc[new["exit_depth"] == depth, "position"])


def test_marks_stand_at_the_tokens_of_their_kind(comparison: sv.Comparison) -> None:
    trace = comparison.selfdraft
    shown = _by_name(plots.dashboard(trace))
    for kind in ("first", "correction", "bonus"):
        expected = list(trace.tokens.loc[trace.tokens["kind"] == kind, "position"])
        assert list(shown[kind].x) == expected or (not expected and np.isnan(shown[kind].x).all())


def test_drafts_are_told_apart_by_outcome(comparison: sv.Comparison) -> None:
    trace = comparison.selfdraft
    assert (trace.drafts["outcome"] == "accepted").any()
    assert (trace.drafts["outcome"] != "accepted").any(), "the example should reject something"
    shown = _by_name(plots.dashboard(trace))
    for outcome in ("accepted", "rejected", "dropped"):
        these = trace.drafts[trace.drafts["outcome"] == outcome]
        points = [mark for mark in plots.dashboard(trace).data if mark.name == outcome and mark.yaxis == "y2"][-1]
        assert np.allclose(points.y, these["confidence"]) or not len(these)
    x, y = _corners(shown["dropped"])
    these = trace.drafts[trace.drafts["outcome"] == "dropped"]
    assert np.allclose((y[:, 1] + y[:, 4]) / 2, these["confidence"])
    assert np.allclose((x[:, 1] + x[:, 2]) / 2, these["position"].astype(float))


def test_round_bars_stand_over_the_tokens_they_committed(comparison: sv.Comparison) -> None:
    rounds = comparison.selfdraft.rounds
    thrown_away = rounds["drafted"] - rounds["accepted"]
    up, met_up, down, met_down = rounds_data(comparison.selfdraft.rounds)
    for bars, met, count in ((up, met_up, rounds["accepted"]), (down, met_down, -thrown_away)):
        x, y = (bars[name].reshape(-1, 6) for name in ("x", "y"))
        some = rounds[count != 0]
        assert list(y[:, 1]) == list(count[count != 0])
        widths, first = some["committed"].astype(float), some["first_position"].astype(float)
        assert np.allclose((x[:, 0] + x[:, 2]) / 2, first + (widths - 1) / 2)
        assert np.allclose(x[:, 2] - x[:, 0], 0.9 * widths)
        assert [row[:3] for row in met["customdata"]] == [
            list(row) for row in zip(some["round"], count[count != 0].abs(), some["drafted"], strict=True)
        ]


def test_outlines_enclose_their_rectangles_and_nothing_else() -> None:
    """The shoelace formula over the whole path: lines there and back enclose nothing. Breaks when bars run into one."""
    left, right = np.array([0.0, 3.0, 3.5]), np.array([1.0, 5.0, 4.0])
    bottom, top = np.array([0.0, 2.0, 7.0]), np.array([4.0, 3.0, 8.0])
    path = outlines(left, right, bottom, top)
    x, y = path["x"].astype(float), path["y"].astype(float)
    area = abs((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2
    assert area == pytest.approx(((right - left) * (top - bottom)).sum())


def _by_name(figure: go.Figure) -> dict[str, go.Scatter]:
    return {mark.name: mark for mark in reversed(figure.data)}


def _corners(mark: go.Scatter) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(mark.x, dtype=float).reshape(-1, 6), np.asarray(mark.y, dtype=float).reshape(-1, 6)


def _spans(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    assert (y[:, 1] == y[:, 2]).all()
    return list(zip(x[:, 1], x[:, 2], strict=True))


def test_speed_ends_at_the_summary(comparison: sv.Comparison) -> None:
    """Breaks when the curve counts the prefill, or the first token."""
    for trace in (comparison.selfdraft, comparison.plain):
        _, _, run = tokens_per_second(trace.tokens)
        assert run[-1] == pytest.approx(trace.summary()["tokens_per_second"], rel=1e-4)


def test_the_threshold_is_drawn_as_it_was_in_force() -> None:
    checks = {"position": [4, 4, 5, 6, 7], "threshold": [0.5, 0.5, 0.5, 0.9, float("inf")]}
    steps = threshold_steps(checks)
    assert list(steps["x"]) == [4.5, 6.5, 7.5, 8.5]
    assert list(steps["y"][:2]) == [0.5, np.float32(0.9)]
    assert np.isnan(steps["y"][2:]).all()


def test_a_decode_in_which_nothing_was_drafted_can_be_drawn() -> None:
    model = tiny.load("llama", exit_layers=[2])
    trace = model.generate([1, 2], sv.Settings(threshold=sv.NEVER), max_new_tokens=3)
    figure = plots.dashboard(trace)
    assert len(figure.data) == len(blank_dashboard([2], 5, 0, 8).data)
    assert all(len(shown.x) for shown in figure.data), "an empty trace would drop out of the legend"


def test_columns_of_lists_give_what_dataframes_give(comparison: sv.Comparison) -> None:
    trace = comparison.selfdraft
    tables = [trace.tokens, trace.drafts, trace.rounds, trace.exit_checks]
    lists = [{name: list(table[name]) for name in table.columns} for table in tables]
    lists[0] |= {column: _plain(trace.tokens, column) for column in ("exit_depth", "round")}
    from_frames = dashboard_data(*tables, trace.exit_layers, trace.num_layers)
    from_lists = dashboard_data(*lists, trace.exit_layers, trace.num_layers)
    for one, other in zip(from_frames, from_lists, strict=True):
        np.testing.assert_array_equal(one["x"], other["x"])
        np.testing.assert_array_equal(one["y"], other["y"])


def _plain(tokens, column: str) -> list[float]:
    return list(tokens[column].to_numpy(dtype="float64", na_value=np.nan))


@pytest.mark.parametrize(("value", "ceiling"), [(0.03, 0.03), (1, 1), (4, 5), (60, 100), (101, 200), (2500, 3000)])
def test_axis_ends_are_round(value: float, ceiling: float) -> None:
    assert nice_ceiling(value) == pytest.approx(ceiling)


def test_a_saved_trace_is_drawn_without_torch_and_widgets(comparison: sv.Comparison, tmp_path: Path) -> None:
    path = comparison.selfdraft.save(tmp_path / "run.parquet")
    code = f"""
import sys
for name in ("torch", "transformers", "ipywidgets", "anywidget"):
    sys.modules[name] = None
import selfdraft_viz as sv
from selfdraft_viz import plots
print(len(plots.dashboard(sv.Trace.load({str(path)!r})).data))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 10
