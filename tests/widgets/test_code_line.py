"""The line of Python that the explorer shows does what the control did."""

from __future__ import annotations

import pytest
import tiny
from hypothesis import given
from strategies import settings_for

import selfdraft_viz as sv
from selfdraft_viz.widgets.code_line import literal, settings_change


@pytest.fixture(scope="module")
def explorer() -> sv.Explorer:
    model = sv.Model(tiny.load("llama", exit_layers=[1, 2, 3]).layered, None, sv.ExitHeads([1, 2, 3]), "tiny")
    return sv.Explorer(model, prompt=[1, 2, 3], max_new_tokens=8, check=False)


@given(before=settings_for((1, 2, 3), 5), after=settings_for((1, 2, 3), 5))
def test_a_change_of_settings_can_be_typed(before: sv.Settings, after: sv.Settings) -> None:
    class Holder:
        settings = before

    exec(settings_change(before, after), {"sv": sv, "explorer": Holder})
    assert Holder.settings == after
    assert eval(literal(after), {"sv": sv}) == after


def test_each_control_says_its_line(explorer: sv.Explorer) -> None:
    def does(action, line: str) -> None:
        action()
        assert explorer._code.code == line

    controls, prompt, transport = explorer._controls, explorer._prompt, explorer._transport
    does(
        lambda: setattr(controls.threshold, "value", 0.5),
        "explorer.settings = explorer.settings.replace(threshold=0.5)",
    )
    does(
        lambda: setattr(controls.schedule, "value", "none"),
        "explorer.settings = explorer.settings.replace(schedule=sv.NoAnnealing())",
    )
    does(lambda: setattr(prompt.text, "value", "4 5"), "explorer.prompt = [4, 5]")
    does(lambda: setattr(prompt.max_new_tokens, "value", 9), "explorer.max_new_tokens = 9")
    does(lambda: setattr(prompt.how, "value", "sampled"), "explorer.sampling = sv.Sampling()")
    does(lambda: setattr(prompt.seed, "value", 3), "explorer.sampling = sv.Sampling(seed=3)")
    does(lambda: setattr(transport.pace, "value", 0.05), "explorer.seconds_per_step = 0.05")
    does(lambda: setattr(transport.pace, "value", 0.0), "explorer.seconds_per_step = 0")
    does(transport.run.click, "explorer.run()")
    explorer.wait(30)
    position = len(explorer.trace.prompt_ids) + 2
    does(lambda: explorer._views._chosen(position), f"explorer.select({position})")
    does(explorer._views._look_asked, f"explorer.look({position})")
    does(explorer._files.pin.click, "explorer.pin()")
    does(explorer._files.unpin.click, "explorer.unpin()")
    for code in ("explorer.run()", f"explorer.select({position})", "explorer.pin()", "explorer.unpin()"):
        if code != "explorer.run()":
            explorer.wait(30)
        exec(code, {"sv": sv, "explorer": explorer})
    explorer.stop()
