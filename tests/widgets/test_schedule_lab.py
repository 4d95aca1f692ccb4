"""The schedule lab's controls and Python show the same, and every answer is a replay."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import recorded

import selfdraft_viz as sv
from selfdraft_viz.lab.whatif import replay_table
from selfdraft_viz.widgets.schedule_lab import ScheduleLab

BASE = sv.Settings(sv.LinearAnnealing(0.5), threshold=0.1, max_width=4)


@pytest.fixture
def lab() -> ScheduleLab:
    measured = pd.DataFrame({"alpha": [0.5], "threshold": [0.1], "measured": [1.1]})
    return ScheduleLab(recorded.records(), recorded.costs(), BASE, measured=measured)


def test_moving_a_slider_answers_with_a_replay(lab: ScheduleLab) -> None:
    lab._controls.threshold.value = 0.05
    expected = replay_table(recorded.records(), recorded.costs(), [BASE.replace(threshold=0.05)])
    assert lab.settings == BASE.replace(threshold=0.05)
    assert lab.table.equals(expected)
    assert "nothing here was timed" in lab._readout.value
    assert lab.seconds > 0
    heat, now, points = lab._heat.snapshot().data
    assert list(now.y) == [0.05]
    assert list(points.marker.color) == [1.1]
    before = np.asarray(heat.z)
    lab._controls.max_width.value = 1
    assert not np.allclose(np.asarray(lab._heat.snapshot().data[0].z), before), "the map follows the width"


def test_python_moves_the_controls_and_bad_settings_move_nothing(lab: ScheduleLab) -> None:
    lab.settings = BASE.replace(threshold=0.3, max_width=2)
    assert lab._controls.threshold.value == 0.3
    with pytest.raises(sv.SettingsError, match="a dense record holds"):
        lab.settings = BASE.replace(schedule=sv.ConstantTemperature(9.0))
    assert lab.settings == BASE.replace(threshold=0.3, max_width=2)
    lab._controls.strength.value = 4.0  # hotter than any record
    assert "a dense record holds" in lab._readout.value


def test_changes_are_told_against_the_pinned_settings(lab: ScheduleLab) -> None:
    lab.settings = BASE.replace(threshold=0.9)
    assert "→" in lab._readout.value
    counts = {trace.name: len(trace.x) for trace in lab._tokens.snapshot().data if trace.name}
    assert sum(counts.values()) == recorded.NEW_TOKENS - 1
    lab.pin()
    assert "→" not in lab._readout.value
    names = [trace.name for trace in lab._tokens.snapshot().data if trace.name]
    assert names[0] == f"as before ({recorded.NEW_TOKENS - 1})"


def test_records_are_needed() -> None:
    with pytest.raises(sv.SettingsError, match="no records"):
        ScheduleLab({}, recorded.costs(), BASE)
