"""Figures of calibration show the numbers of their tables."""

from __future__ import annotations

import json

import pytest
import synthetic

import selfdraft_viz as sv
from selfdraft_viz.lab.calibration import reliability_table, threshold_curve
from selfdraft_viz.lab.fitting import fit_temperatures
from selfdraft_viz.lab.study import THRESHOLDS, annealing_steps, straightness, study_records
from selfdraft_viz.plots.calibration import (
    annealing_slider,
    calibration_errors,
    fitted_temperatures,
    reliability_diagram,
    risk_coverage_figure,
    worth_figure,
)


@pytest.fixture(scope="module")
def dense():
    return synthetic.record([1.0, 2.0], texts=8)


def test_reliability_lines_are_the_table(dense):
    table = reliability_table(dense)
    figure = reliability_diagram({"raw": table, "annealed": reliability_table(dense, sv.LinearAnnealing(1.0))}, 10, "t")
    lines = [trace for trace in figure.data if trace.name == "exit 2"]
    assert list(lines[0].y) == table.query("exit_layer == 2")["agreement"].tolist()
    assert list(lines[0].error_y.array) == (
        (table["agreement_high"] - table["agreement"])[table["exit_layer"] == 2].tolist()
    )
    assert [trace.showlegend for trace in lines] == [True, False]
    assert [note.text for note in figure.layout.annotations] == ["raw", "annealed"]


def test_every_frame_moves_all_three_panels(dense):
    steps = annealing_steps(dense, [-0.2, 0.0, 0.5], threshold=0.6)
    figure = annealing_slider(steps, 10, 0.6, start=0.0, title="t")
    assert [frame.name for frame in figure.frames] == ["-0.2", "0", "0.5"]
    assert figure.layout.sliders[0].active == 1
    assert [step.args[0][0] for step in figure.layout.sliders[0].steps] == ["-0.2", "0", "0.5"]
    for frame, tables in zip(figure.frames, steps.values(), strict=True):
        moved = [figure.data[index] for index in frame.traces]
        assert [trace.name for trace in moved] == [trace.name for trace in frame.data]
        assert list(frame.data[0].y) == tables["reliability"].query("exit_layer == 1")["agreement"].tolist()
        bars = [trace for trace in frame.data if trace.type == "bar"]
        total = [one + other for one, other in zip(bars[0].y, bars[1].y, strict=True)]
        assert total == pytest.approx(tables["exits"]["share"].tolist())
        star = frame.data[len(frame.data) - 3]
        assert star.x[0] == pytest.approx(tables["exits"]["share"][:-1].sum())
    json.loads(figure.to_json())


def test_the_other_figures_show_their_tables(dense):
    study = study_records({("lens", "own"): dense, ("heads", "own"): synthetic.record([0.7, 0.9], texts=8, seed=1)})
    errors = calibration_errors(study.calibration, "t")
    first = study.calibration.query("heads == 'lens' and schedule == 'none'")
    assert list(errors.data[0].y) == first["ece"].tolist()
    worth = worth_figure(study.worth, 10, "t")
    assert list(worth.data[0].x) == study.worth.query("schedule == 'none'")["layer_passes_per_token"].tolist()
    fitted = straightness(fit_temperatures(dense), dense)
    assert list(fitted_temperatures({"lens": fitted}, 10, "t").data[0].y) == fitted["temperature"].tolist()
    curve = threshold_curve(dense, None, THRESHOLDS)
    shown = risk_coverage_figure({"lens": curve}, "t").data[0]
    assert list(shown.x) == curve.query("coverage > 0")["coverage"].tolist()
