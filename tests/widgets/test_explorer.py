"""The explorer from Python, as a script uses it: no front end, a real model, real decoding."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import ipywidgets as ipw
import numpy as np
import pytest
import tiny

import selfdraft_viz as sv
from selfdraft_viz.widgets import Explorer
from selfdraft_viz.widgets.measure import measure_decode_loss
from selfdraft_viz.widgets.plot_view import PlotView

BOLD = sv.Settings(threshold=0.3, max_width=4)


def running_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "selfdraft-explorer"]


def explore(model: sv.Model, **options) -> Explorer:
    return Explorer(model, "Once upon a time", BOLD, **{"max_new_tokens": 24, **options})


def widgets_of(widget):
    """A widget and all below it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from widgets_of(child)


def sampled(explorer: Explorer, name: str, value: float) -> None:
    """As a hand does: sampling on, and a value typed."""
    explorer._prompt.how.value = "sampled"
    getattr(explorer._prompt, name).value = value


def test_a_run_is_the_decode_and_is_checked(embedded: sv.Model) -> None:
    explorer = explore(embedded).run()
    assert explorer.wait(60)
    expected = embedded.generate_plain("Once upon a time", max_new_tokens=24)
    assert explorer.trace.token_ids == expected.token_ids
    assert explorer.equal is True
    assert explorer.comparison.equal
    assert explorer.speedup == pytest.approx(explorer.comparison.speedup)
    assert explorer.state == "ended"
    assert "Equal: all 24 new tokens" in explorer._views.readout.verdict
    assert "cpu" in explorer._facts()
    assert not running_threads()


def test_the_verdict_is_measured_not_assumed(embedded: sv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when the explorer calls a text equal that is not."""
    other = embedded.generate_plain("A king had", max_new_tokens=24)
    assert other.token_ids != embedded.generate_plain("Once upon a time", max_new_tokens=24).token_ids
    explorer = explore(embedded)
    stream_plain = embedded.stream_plain
    monkeypatch.setattr(embedded, "stream_plain", lambda prompt, **options: stream_plain("A king had", **options))
    explorer.run().wait(60)
    assert explorer.equal is False
    assert "Different from new token" in explorer._views.readout.verdict


def test_without_the_check_nothing_is_claimed(embedded: sv.Model) -> None:
    explorer = explore(embedded, check=False).run()
    explorer.wait(60)
    assert (explorer.equal, explorer.speedup, explorer.comparison) == (None, None, None)
    assert explorer._views.readout.verdict == ""
    assert "Not compared" in explorer._views.readout.status


def test_settings_moved_while_it_decodes_hold_from_the_next_decision_on(embedded: sv.Model) -> None:
    explorer = explore(embedded, max_new_tokens=40)
    for _ in range(12):
        explorer.step()
        while explorer.state == "running":
            time.sleep(0.002)
    done = len(explorer.trace.exit_checks)
    assert done
    layer = embedded.exit_layers[0]
    explorer._controls.temperatures[layer].value = 3.25  # as a hand does
    explorer._controls.threshold.value = 0.2
    explorer.run().wait(60)
    checks = explorer.trace.exit_checks
    assert (checks["threshold"][:done] == BOLD.threshold).all()
    assert (checks["threshold"][done:] == 0.2).all()
    assert (checks.loc[done:, "exit_temperature"][checks["layer"] == layer] == 3.25).all()
    assert (checks.loc[: done - 1, "exit_temperature"][checks["layer"] == layer] != 3.25).all()
    assert len(explorer.trace.settings_history) >= 2
    assert explorer.equal


def test_settings_set_from_python_move_the_controls_and_the_decode(embedded: sv.Model) -> None:
    explorer = explore(embedded)
    explorer.step()
    settings = sv.Settings(schedule=sv.CosineAnnealing(0.37), threshold=0.123, max_width=40, max_depth=None)
    explorer.settings = settings
    assert explorer.settings == settings
    assert explorer._controls.schedule.value == "cosine"
    explorer.run().wait(60)
    assert explorer.trace.settings == settings


def test_a_setting_that_does_not_fit_is_refused_in_the_widget_and_the_run_goes_on(embedded: sv.Model) -> None:
    explorer = explore(embedded)
    explorer.step()
    with pytest.raises(sv.SettingsError, match="max_depth=99"):
        explorer.settings = BOLD.replace(max_depth=99)
    assert "max_depth=99" in explorer._views.readout.error
    assert explorer.settings == BOLD
    explorer.run().wait(60)
    assert explorer.equal
    assert explorer.trace.settings_history == (BOLD,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda explorer: setattr(explorer, "prompt", ""), "the prompt is empty"),
        (lambda explorer: setattr(explorer, "prompt", "word " * 5000), "shorten it"),
        (lambda explorer: setattr(explorer, "max_new_tokens", 0), "max_new_tokens=0"),
        (lambda explorer: setattr(explorer, "max_new_tokens", 10**6), "goes past the model's context"),
        (lambda explorer: sampled(explorer, "temperature", 0.0), "temperature=0.0"),
        (lambda explorer: sampled(explorer, "top_p", 1.5), "top_p=1.5"),
        (lambda explorer: sampled(explorer, "seed", -1), "seed=-1"),
    ],
)
def test_bad_input_is_said_in_words_and_nothing_hangs(embedded: sv.Model, change, words: str) -> None:
    explorer = explore(embedded)
    change(explorer)
    with pytest.raises(sv.SelfDraftError) as raised:
        explorer.run()
    assert words in str(raised.value)
    assert explorer._views.readout.error == str(raised.value)
    explorer._views.readout.error = ""
    explorer._transport.run.click()  # the button says it in the widget alone
    assert words in explorer._views.readout.error
    assert not running_threads()
    explorer.prompt, explorer.max_new_tokens, explorer.sampling = "Once", 2, None
    explorer.run().wait(60)
    assert explorer.equal
    assert explorer._views.readout.error == ""


def test_sampling_is_fixed_by_its_seed_and_checked(embedded: sv.Model) -> None:
    sampling = sv.Sampling(temperature=0.9, top_p=0.9, top_k=50, seed=11)
    explorer = explore(embedded, sampling=sampling)
    assert explorer.sampling == sampling
    explorer.run().wait(60)
    plain = embedded.generate_plain("Once upon a time", max_new_tokens=24, sampling=sampling)
    assert explorer.trace.token_ids == plain.token_ids
    assert explorer.equal


def test_running_again_stops_the_older_run(embedded: sv.Model) -> None:
    explorer = explore(embedded, max_new_tokens=200).run()
    older = explorer._session.run
    explorer.run()
    assert not older.alive
    assert older.stopped
    assert len(running_threads()) == 1
    explorer.stop()
    assert not running_threads()
    assert explorer._views.readout.status.startswith("Stopped after")
    assert explorer.equal is None


def test_two_explorers_of_one_model_decode_side_by_side(embedded: sv.Model) -> None:
    one, other = explore(embedded), Explorer(embedded, "The king said", BOLD, max_new_tokens=24)
    one.run(), other.run()
    one.wait(60), other.wait(60)
    assert one.equal
    assert other.equal
    assert one.trace.text != other.trace.text


def test_an_interrupted_wait_stops_the_run(embedded: sv.Model) -> None:
    explorer = explore(embedded, max_new_tokens=400).run()
    run = explorer._session.run
    wait = run.wait

    def interrupted(timeout: float | None = None) -> bool:
        wait(0.1)
        raise KeyboardInterrupt

    run.wait = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        explorer.wait()
    assert not run.alive


def test_wait_comes_back_after_its_timeout_and_on_a_pause(embedded: sv.Model) -> None:
    explorer = explore(embedded, max_new_tokens=400).run()
    assert explorer.wait(0.05) is False
    explorer.pause()
    assert explorer.wait() is False
    assert explorer.state == "paused"
    explorer.stop()
    assert explorer.wait() is True


def test_a_decode_that_fails_says_so_in_the_widget_and_to_who_waits() -> None:
    model = tiny.load("llama", exit_layers=[2], seed=1)
    explorer = Explorer(model, [1, 2, 3], sv.Settings(threshold=0.1), max_new_tokens=20)

    def broken(*_, **__):
        raise sv.NonFiniteLogitsError("the logits at position 7 are not finite")
        yield

    explorer._model = Broken(model, broken)  # type: ignore[assignment]
    explorer.run()
    with pytest.raises(sv.NonFiniteLogitsError, match="not finite"):
        explorer.wait(10)
    assert "the logits at position 7 are not finite" in explorer._views.readout.error
    assert explorer._views.readout.status.startswith("Failed")


class Broken:
    """A model whose decode fails."""

    def __init__(self, model: sv.Model, stream) -> None:
        self._of = model
        self.stream = stream

    def __getattr__(self, name: str):
        return getattr(self._of, name)


def test_a_model_without_a_tokenizer_takes_token_ids() -> None:
    model = tiny.load("llama", exit_layers=[1, 2])
    explorer = Explorer(model, [5, 6, 7], sv.Settings(threshold=0.2), max_new_tokens=10)
    assert explorer.prompt == (5, 6, 7)
    explorer.run().wait(30)
    assert explorer.equal
    explorer.prompt = "five six"
    with pytest.raises(sv.PromptError, match="no list of token ids"):
        explorer.run()


def test_markup_in_a_prompt_stays_text(embedded: sv.Model) -> None:
    """Where a widget reads markup, and where plotly does. (All others put text into the page as text.)"""
    prompt = "<img src=x onerror=alert(1)>"
    explorer = explore(embedded)
    explorer.prompt = prompt
    explorer.run().wait(60)
    explorer.select(len(explorer.trace.prompt_ids) + 3)
    for widget in widgets_of(explorer):
        if isinstance(widget, ipw.HTML):
            assert "<img" not in widget.value
        elif isinstance(widget, PlotView):
            assert "<img" not in widget.snapshot().to_json()
    assert explorer._views.text._prompt == prompt  # shown through textContent, see the text view's tests


def test_the_figure_shows_the_run(embedded: sv.Model) -> None:
    explorer = explore(embedded).run()
    explorer.wait(60)
    trace = explorer.trace
    figure = explorer._views.dashboard.snapshot()
    assert list(figure.data[0].customdata[::5]) == list(
        trace.tokens.loc[trace.tokens["kind"] != "prompt", "exit_depth"]
    )
    ordinary = next(curve for curve in figure.data if curve.name == "ordinary decoding")
    assert not np.isnan(ordinary.y).any(), "ordinary decoding was measured and is drawn"
    assert figure.layout.xaxis5.range == (len(trace.prompt_ids) - 1, len(trace.prompt_ids) + 24)


def test_plotly_is_sent_once_a_page_and_is_in_no_state(embedded: sv.Model) -> None:
    """Breaks when a notebook saved with its widgets, or a second explorer, carries megabytes of plotly along."""

    def size(widget) -> int:
        return len(str(widget.get_state())) + sum(map(size, getattr(widget, "children", ())))

    assert size(explore(embedded)) < 300_000


def test_the_loss_of_speed_can_be_measured(embedded: sv.Model) -> None:
    """The figure itself depends on the machine; that it is measured on real decodes does not."""
    loss = measure_decode_loss(explore(embedded), repeats=3)
    assert len(loss.alone) == len(loss.explored) == 3
    assert min(cost.wall for cost in loss.alone) > 0
    assert loss.drawing_share < 0.25
    assert "decode loss" in str(loss)


def test_importing_the_package_needs_no_widgets() -> None:
    code = "import sys, selfdraft_viz; print([m for m in ('plotly', 'ipywidgets', 'anywidget') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_closing_ends_the_run(embedded: sv.Model) -> None:
    explorer = explore(embedded, max_new_tokens=400).run()
    explorer.close()
    assert not running_threads()
