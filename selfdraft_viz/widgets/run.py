"""One decode in a thread of its own, which can be paused, stepped and stopped, and draws as it goes.

The worker is the only thread that touches the generator of events. It also calls `frame`, so that a running decode is
drawn by one thread, about ten times a second, less often where drawing is slow.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeAlias

from selfdraft_viz import events as ev
from selfdraft_viz import openmp

State: TypeAlias = Literal["running", "paused", "ended"]
Stage: TypeAlias = Literal["decoding", "checking", "done"]

FRAME_SECONDS = 0.09
DRAWING_SHARE = 0.07
"""The most of a run's time that goes into drawing: frames wait until the last one's cost is below this share. What
counts is processor time of the run's thread: where a browser shares the cores, waiting for it is no cost of drawing."""
_SLOWEST_FRAME_SECONDS = 1.0
_LOOK_ROUND_SECONDS = 0.5  # how often a paused run looks whether it is still wanted


class Run:
    """A decode that runs beside the caller.

    Args:
        events: the decode's generator; the run closes it.
        check: called after a decode that came to its end, returns the events of ordinary decoding; None = no check.
        frame: called in the worker thread when there is something to draw: with True when it will stay for a while.
        wanted: called now and then; the run stops when it returns False.
        paused: start paused, for stepping.
    """

    def __init__(
        self,
        events: Iterator[ev.Event],
        check: Callable[[], Iterator[ev.Event]] | None = None,
        frame: Callable[[bool], None] = lambda whole: None,
        wanted: Callable[[], bool] = lambda: True,
        paused: bool = False,
    ) -> None:
        self.events: list[ev.Event] = []
        self.plain_events: list[ev.Event] = []
        self.stage: Stage = "decoding"
        self.stopped = False
        self.error: BaseException | None = None
        self.seconds_per_step = 0.0
        """How long to hold after each event that can be seen, so that an audience can follow."""
        self.started_at = time.perf_counter()
        self.decoded_at: float | None = None
        self.frames = 0
        self.drawing_seconds = 0.0
        self._stream = events
        self._check = check
        self._frame = frame
        self._wanted = wanted
        self._condition = threading.Condition()
        self._paused = paused
        self._steps = 0
        self._commits_due = 0
        self._next_frame = 0.0
        self._finished = False  # nothing more will be decoded; the last frame may still be drawn
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="selfdraft-explorer", daemon=True)

    def start(self) -> None:
        openmp.give_team_back()  # the calling thread's: the cores are the run's
        self._thread.start()

    @property
    def state(self) -> State:
        if self._finished:
            return "ended"
        return "paused" if self._paused and not self._steps else "running"

    @property
    def alive(self) -> bool:
        """Whether its thread still exists."""
        return self._thread.is_alive()

    def pause(self) -> None:
        with self._condition:
            self._paused = True
            self._steps = 0
            self._condition.notify_all()

    def resume(self) -> None:
        with self._condition:
            self._paused = False
            self._steps = 0
            self._condition.notify_all()

    def step(self) -> None:
        """Let one more thing happen: an exit check, a pass with catch-up, or a verification with its commits."""
        with self._condition:
            self._paused = True
            self._steps += 1
            self._condition.notify_all()

    def stop(self, timeout: float | None = 10.0) -> None:
        """End the run within an event; returns when its thread is gone (or, from that thread, at once)."""
        with self._condition:
            self.stopped = self.stopped or not self._finished
            self._condition.notify_all()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the run has ended or is paused, at most `timeout` seconds. Returns whether it has ended."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ended.wait(0.05):
            if self.state == "paused" or (deadline is not None and time.monotonic() > deadline):
                return False
        self._thread.join(1.0)
        return True

    def _work(self) -> None:
        try:
            self._consume(self._stream, self.events)
            self.decoded_at = time.perf_counter()
            if not self.stopped and self._check is not None:
                self.stage = "checking"
                self.resume()  # who steps through a decode does not step through the check
                self._draw(True)
                self._consume(self._check(), self.plain_events)
            self.stage = "done"
        except BaseException as error:  # shown by the explorer, and raised by its wait()
            self.error = error
        finally:
            try:
                self._draw(True, last=True)
            except BaseException as error:
                self.error = self.error or error
            self._ended.set()

    def _consume(self, stream: Iterator[ev.Event], into: list[ev.Event]) -> None:
        try:
            self._gate()
            while not self.stopped:
                event = next(stream, None)
                if event is None:
                    return
                into.append(event)
                if self.stage == "decoding":
                    self._after(event)
                if time.perf_counter() >= self._next_frame:
                    self._draw(False)
                if self._paused:
                    self._gate()
        finally:
            stream.close()  # type: ignore[attr-defined]

    def _after(self, event: ev.Event) -> None:
        """Count steps, and hold for the audience."""
        if isinstance(event, ev.Verified):
            self._commits_due = event.accepted + (event.correction is not None or event.bonus is not None)
        elif isinstance(event, ev.Committed) and self._commits_due:
            self._commits_due -= 1
        if not (self._paused or self.seconds_per_step) or not ends_step(event, self._commits_due):
            return
        if self._paused:
            with self._condition:
                self._steps = max(0, self._steps - 1)
        else:
            self._draw(True)
            with self._condition:
                self._condition.wait_for(lambda: self.stopped or self._paused, timeout=self.seconds_per_step)

    def _gate(self) -> None:
        """Wait here while paused. What happened last is drawn first."""
        if self._paused and not self._steps:
            self._draw(True)
        with self._condition:
            while self._paused and not self._steps and not self.stopped:
                self._condition.wait(_LOOK_ROUND_SECONDS)
                self._look_round()

    def _look_round(self) -> None:
        if not self._wanted():
            self.stopped = True

    def _draw(self, whole: bool, last: bool = False) -> None:
        begun, processor = time.perf_counter(), time.thread_time()
        if last:
            self._finished = True
        else:
            self._look_round()
        self._frame(whole)
        cost = time.thread_time() - processor
        self.frames += 1
        self.drawing_seconds += cost
        self._next_frame = begun + min(max(FRAME_SECONDS, cost / DRAWING_SHARE), _SLOWEST_FRAME_SECONDS)


def ends_step(event: ev.Event, commits_due: int) -> bool:
    """Whether `event` is the last of something an audience can see happen.

    Args:
        commits_due: how many tokens of the last verdict have not been committed yet.
    """
    match event:
        case ev.ExitCheck():
            return True
        case ev.LayersRan():
            return event.catch_up_rows > 0 or event.phase == "prefill"
        case ev.Verified():
            return commits_due == 0
        case ev.Committed():
            return commits_due == 0
        case _:
            return False


def token_ids(events: Sequence[ev.Event]) -> list[int]:
    """The tokens committed in `events`."""
    return [event.token_id for event in events if isinstance(event, ev.Committed)]
