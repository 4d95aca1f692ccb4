"""A run beside the caller: paused, stepped, stopped, failing; never more than one thread, and none left."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import tiny

import selfdraft_viz as sv
from selfdraft_viz import events as ev
from selfdraft_viz.widgets.run import Run, token_ids

PROMPT = [3, 1, 4, 1, 5]
SETTINGS = sv.Settings(threshold=0.2, max_width=4)


@pytest.fixture(scope="module")
def model() -> sv.Model:
    return tiny.load("llama", exit_layers=[1, 2, 3])


def stream(model: sv.Model) -> Iterator[ev.Event]:
    return model.stream(PROMPT, SETTINGS, max_new_tokens=40)


def plain(model: sv.Model):
    return lambda: model.stream_plain(PROMPT, max_new_tokens=40)


def settled(run: Run, seconds: float = 10) -> None:
    """Wait until the run stands still at its gate."""
    deadline = time.monotonic() + seconds
    while run.state != "paused":
        assert time.monotonic() < deadline
        time.sleep(0.005)
    count = -1
    while count != len(run.events):
        count = len(run.events)
        time.sleep(0.05)


def test_a_run_sees_the_events_of_the_stream_and_then_of_ordinary_decoding(model: sv.Model) -> None:
    run = Run(stream(model), plain(model))
    run.start()
    assert run.wait(30)
    assert token_ids(run.events) == model.generate_plain(PROMPT, max_new_tokens=40).token_ids
    assert token_ids(run.plain_events) == token_ids(run.events)
    assert (run.stage, run.state, run.error) == ("done", "ended", None)
    assert not run.alive


def test_a_paused_run_stands_still_until_it_is_resumed(model: sv.Model) -> None:
    run = Run(stream(model), paused=True)
    run.start()
    settled(run)
    assert run.events == []
    assert run.wait() is False  # a paused run would be waited for in vain
    run.resume()
    assert run.wait(30)
    assert isinstance(run.events[-1], ev.DecodeFinished)


def test_steps_end_at_checks_catch_up_and_verification(model: sv.Model) -> None:
    """Breaks when a step shows nothing, or more than one thing, or stops between a verdict and its commits."""
    run = Run(stream(model), paused=True)
    run.start()
    seen = 0
    kinds = set()
    for _ in range(60):
        run.step()
        deadline = time.monotonic() + 10
        while run.state == "running" and time.monotonic() < deadline:
            time.sleep(0.002)
        if run.state == "ended":
            break
        fresh, seen = run.events[seen:], len(run.events)
        assert sum(isinstance(event, ev.ExitCheck | ev.Verified) for event in fresh) <= 1
        last = fresh[-1]
        kinds.add(type(last).__name__)
        if isinstance(last, ev.LayersRan):
            assert last.catch_up_rows or last.phase == "prefill"
        verdicts = [event for event in run.events if isinstance(event, ev.Verified)]
        commits = sum(isinstance(event, ev.Committed) and event.round is not None for event in run.events)
        due = sum(v.accepted + (v.correction is not None or v.bonus is not None) for v in verdicts)
        assert commits == due
    run.stop()
    assert {"ExitCheck", "Committed"} <= kinds


def test_stop_ends_within_an_event_and_leaves_no_thread(model: sv.Model) -> None:
    before = set(threading.enumerate())
    for paused in (False, True):
        run = Run(stream(model), plain(model), paused=paused)
        run.seconds_per_step = 30.0  # were it not for the stop, this would take minutes
        run.start()
        time.sleep(0.05)
        run.stop(timeout=10)
        assert not run.alive
        assert run.stopped
        assert run.plain_events == []
    assert set(threading.enumerate()) <= before


def test_a_failing_decode_ends_the_run_and_keeps_the_error() -> None:
    def failing() -> Iterator[ev.Event]:
        yield ev.DecodeFinished("length", 0, 0.0)
        raise RuntimeError("the model broke")

    frames = []
    run = Run(failing(), frame=frames.append)
    run.start()
    assert run.wait(10)
    assert str(run.error) == "the model broke"
    assert frames[-1] is True, "the last frame is drawn, to say so"


def test_a_failing_frame_ends_the_run_and_keeps_the_error(model: sv.Model) -> None:
    def frame(_: bool) -> None:
        raise RuntimeError("cannot draw")

    run = Run(stream(model), frame=frame)
    run.start()
    assert run.wait(10)
    assert str(run.error) == "cannot draw"


def test_a_run_that_nobody_wants_ends_even_while_paused(model: sv.Model) -> None:
    wanted = True
    run = Run(stream(model), wanted=lambda: wanted, paused=True)
    run.start()
    settled(run)
    wanted = False
    assert run.wait(0.0) is False or run.state == "ended"
    deadline = time.monotonic() + 10
    while run.alive and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not run.alive
    assert run.stopped


def test_frames_wait_longer_where_drawing_is_slow(model: sv.Model) -> None:
    """Breaks when slow drawing eats into decoding: it may take a small share of the time only."""

    def slow(_: bool) -> None:
        begun = time.thread_time()
        while time.thread_time() - begun < 0.03:
            pass

    def endless() -> Iterator[ev.Event]:
        for number in range(1500):
            time.sleep(0.001)
            yield ev.SettingsRefused(str(number))

    run = Run(endless(), frame=slow)
    begun = time.perf_counter()
    run.start()
    assert run.wait(60)
    assert len(run.events) == 1500
    assert run.drawing_seconds / (time.perf_counter() - begun) < 0.12


def test_drawing_stays_at_about_ten_frames_a_second() -> None:
    def endless() -> Iterator[ev.Event]:
        for number in range(1000):
            time.sleep(0.001)
            yield ev.SettingsRefused(str(number))

    run = Run(endless())
    begun = time.perf_counter()
    run.start()
    assert run.wait(60)
    assert run.frames <= 11.5 * (time.perf_counter() - begun) + 3
