"""Exercises say "not yet", "right", or what is wrong; the folded solutions of the notebooks are right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from selfdraft_viz.lab import exercises
from selfdraft_viz.lab.recording import shipped_record

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def solutions() -> list[str]:
    cells = [cell for path in NOTEBOOKS for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    code = ["".join(cell["source"]) for cell in cells if "solution" in cell["metadata"].get("tags", [])]
    return [solution for solution in code if "exercises." in solution]  # the others run in their notebook


def test_every_exercise_has_a_folded_solution():
    checks = {name for name in dir(exercises) if name.startswith("check_")}
    assert {name for name in checks if any(f"exercises.{name}(" in code for code in solutions())} == checks


@pytest.mark.parametrize("code", solutions(), ids=lambda code: code.split("(")[0].removeprefix("def "))
def test_a_folded_solution_is_right(code, capsys):
    exec(code, {"np": np, "exercises": exercises, "own": shipped_record("logit lens", "own")})
    assert capsys.readouterr().out.startswith("right, in all")


def test_wrong_answers_get_a_hint(capsys):
    assert not exercises.check_commit(lambda drafts, true_ids: drafts)
    assert "expected [5, 9]" in capsys.readouterr().out
    assert not exercises.check_draw(lambda logits, noise: int(logits.argmax()))
    assert not exercises.check_catch_up(lambda depths, layer: [len(depths) - 1])
    assert not exercises.check_confidence(lambda logits, temperature: np.exp(logits.max()) / np.exp(logits).sum())
    assert not exercises.check_calibration_error(lambda confidence, agrees: abs(confidence.mean() - agrees.mean()))
    assert "Hint" in capsys.readouterr().out


def test_an_empty_function_is_not_yet_one(capsys):
    assert not exercises.check_draw(lambda logits, noise: ...)
    assert capsys.readouterr().out.strip() == exercises.NOT_YET
