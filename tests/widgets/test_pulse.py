"""A run ends when its last view is gone, and never for want of a view."""

from __future__ import annotations

import pytest

from selfdraft_viz.widgets import pulse
from selfdraft_viz.widgets.pulse import FAREWELL_SECONDS, HIDDEN_SECONDS, SILENCE_SECONDS, Pulse


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pulse, "time", clock)
    return clock


def hear(heart: Pulse, kind: str, view: str = "a", hidden: bool = False) -> None:
    """As a message of the front end arrives."""
    heart._handle_custom_msg({"type": kind, "view": view, "hidden": hidden}, [])


def test_without_a_front_end_it_is_always_wanted(clock: Clock) -> None:
    heart = Pulse()
    clock.now += 1e6
    assert heart.wanted()
    assert not heart.seen


def test_a_farewell_ends_it_soon_unless_another_view_appears(clock: Clock) -> None:
    heart = Pulse()
    hear(heart, "beat")
    hear(heart, "farewell")
    clock.now += FAREWELL_SECONDS / 2
    assert heart.wanted()
    hear(heart, "beat", "b")
    clock.now += FAREWELL_SECONDS
    assert heart.wanted()
    hear(heart, "farewell", "b")
    clock.now += FAREWELL_SECONDS
    assert not heart.wanted()


def test_one_view_of_two_may_go(clock: Clock) -> None:
    heart = Pulse()
    hear(heart, "beat", "a")
    hear(heart, "beat", "b")
    hear(heart, "farewell", "a")
    clock.now += FAREWELL_SECONDS + 1
    assert heart.wanted()


@pytest.mark.parametrize(("hidden", "patience"), [(False, SILENCE_SECONDS), (True, HIDDEN_SECONDS)])
def test_silence_ends_it_later_where_the_page_is_in_the_background(clock: Clock, hidden: bool, patience: float) -> None:
    heart = Pulse()
    hear(heart, "beat", hidden=hidden)
    clock.now += patience - 1
    assert heart.wanted()
    clock.now += 2
    assert not heart.wanted()


def test_silence_does_not_count_while_the_kernel_cannot_hear(clock: Clock) -> None:
    """Breaks when a long cell ends the run that it waits for."""
    listening = False
    heart = Pulse(lambda: listening)
    hear(heart, "beat")
    clock.now += 10 * SILENCE_SECONDS
    assert heart.wanted()
    listening = True
    assert heart.wanted(), "patience starts anew when messages can arrive again"
    clock.now += SILENCE_SECONDS + 1
    assert not heart.wanted()


@pytest.mark.parametrize("message", ["beat", None, 3, [], {"type": "beat"}, {"type": "farewell", "view": "x"}, {}])
def test_strange_messages_do_no_harm(clock: Clock, message: object) -> None:
    Pulse()._handle_custom_msg(message, [])
