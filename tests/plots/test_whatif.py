"""The schedule lab's figures show the tables that they are given, and escape what comes from a model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from selfdraft_viz.plots.predictions import predicted_against_measured, speedup_intervals
from selfdraft_viz.plots.whatif import (
    alpha_threshold_heatmap,
    pareto,
    sensitivity_panels,
    speed_colours,
    token_changes_plot,
)


def test_the_heat_map_has_every_pair_and_the_measured_points() -> None:
    grid = pd.DataFrame(
        [(a, t, 1 + a * t) for a in (-0.5, 0.0, 1.0) for t in (0.2, 0.8)], columns=["alpha", "threshold", "predicted"]
    )
    measured = pd.DataFrame({"alpha": [0.0], "threshold": [0.2], "measured": [0.4]})
    heat, best, points = alpha_threshold_heatmap(grid, measured).data
    assert np.asarray(heat.z).tolist() == pytest.approx(np.array([[0.9, 1.0, 1.2], [0.6, 1.0, 1.8]]))
    assert (best.x[0], best.y[0]) == (1.0, 0.8)
    assert list(points.marker.color) == [0.4]
    assert (heat.zmin, heat.zmax) == (points.marker.cmin, points.marker.cmax), "the same colours"
    assert (heat.zmin + heat.zmax) / 2 == pytest.approx(1), "the middle is as fast"
    assert speed_colours(np.array([0.9, 1.3]))["cmax"] == pytest.approx(1.3)


def test_the_front_is_drawn_in_order() -> None:
    table = pd.DataFrame(
        {"acceptance_rate": [0.9, 0.5, 0.7], "tokens_per_round": [1, 3, 2], "predicted": [1, 1.2, 1.5]}
    )
    dots, line, now = pareto(table, [True, True, True], table.iloc[:1]).data
    assert list(line.x) == [0.5, 0.7, 0.9]
    assert list(line.customdata) == [1.2, 1.5, 1]
    assert len(dots.x) == 3
    assert list(now.x) == [0.9]


def test_every_moved_setting_has_its_panel() -> None:
    table = pd.DataFrame(
        [("threshold", 0.5, "0.5", 1.2, True), ("alpha", 0.0, "0", 1.1, False), ("max_width", 3.0, "3", 1.0, False),
         ("exit_layers", 2.0, "without 2", 0.9, False)],
        columns=["setting", "value", "label", "predicted", "is_base"],
    )  # fmt: skip
    figure = sensitivity_panels(table, 1.2)
    assert [list(trace.y) for trace in figure.data] == [[1.2], [1.1], [1.0], [0.9]]
    assert list(figure.data[3].x) == ["without 2"]


def test_changes_are_drawn_where_they_are_and_texts_escaped() -> None:
    changes = pd.DataFrame(
        {
            "position": [5, 6, 7], "token_id": [1, 2, 3],
            "exit_depth_before": [16, 2, 16], "exit_depth_after": [2, 2, 16],
            "kind_before": ["bonus", "accepted", "bonus"], "kind_after": ["accepted", "accepted", "correction"],
            "change": ["earlier", "", ""],
        }
    )  # fmt: skip
    figure = token_changes_plot(changes, ["<b>x</b>", "$y$", "z"])
    same, _, earlier, _, later = figure.data
    assert list(earlier.x) == [5]
    assert list(same.x) == [6, 7]
    assert len(later.x) == 0
    assert "<b>" not in earlier.text[0].replace("<br>", "")
    assert "$" not in same.text[0]


def test_predictions_and_measurements_stand_beside_each_other() -> None:
    table = pd.DataFrame(
        {"name": ["<a>", "b"], "predicted": [1.2, 1.0], "low": [1.1, 0.9], "high": [1.3, 1.1], "measured": [1.1, 1.0],
         "measured_low": [1.0, 0.9], "measured_high": [1.2, 1.1]}
    )  # fmt: skip
    predicted, measured = speedup_intervals(table, "t", table).data
    assert list(predicted.x) == [1.2, 1.0]
    assert list(measured.error_x.array) == pytest.approx([0.1, 0.1])
    assert "<a>" not in predicted.text[0]
    band, _, dots = predicted_against_measured(table).data
    assert list(dots.y) == [1.1, 1.0]
    assert len(band.x) == 4
