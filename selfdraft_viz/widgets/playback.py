"""The staircase, live while a decode runs, and played back step by step or round by round after it."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as ipw

from selfdraft_viz import events as ev
from selfdraft_viz.plots.staircase import (
    WINDOW,
    StaircaseGrid,
    blank_staircase,
    staircase_data,
    staircase_layout,
    staircase_window,
)
from selfdraft_viz.widgets.narration import narrate
from selfdraft_viz.widgets.plot_view import PlotView
from selfdraft_viz.widgets.run import ends_step


class Playback:
    """Args:
        num_layers: L.
        clicked: called with the position of a column that was clicked.

    Attributes:
        box: the widget.
        place: how many events are shown.
    """

    def __init__(self, num_layers: int, clicked: Callable[[int], None] | None = None) -> None:
        self._lock = threading.RLock()
        self._text_of: Callable[[int, int], str] = lambda position, token_id: str(token_id)
        self._clicked = clicked
        self._window = 0
        self._selected: int | None = None
        self._moving = False
        self._build(num_layers)
        self.start(num_layers, 0, lambda position, token_id: str(token_id))

    def _build(self, num_layers: int) -> None:
        self.view = PlotView(
            blank_staircase(num_layers),
            lambda x, y, trace: self._clicked(round(x)) if self._clicked else None,
            description="Staircase: layers by positions, each cell coloured by the phase in which it was computed",
        )
        self.steps = ipw.IntSlider(
            0, 0, 0, description="play back", readout=False, layout=ipw.Layout(flex="1 1 200px", width="auto"),
            style={"description_width": "72px"},
        )  # fmt: skip
        self.play = ipw.Play(value=0, min=0, max=0, interval=350, show_repeat=False, layout=ipw.Layout(width="auto"))
        self.link = ipw.jslink((self.play, "value"), (self.steps, "value"))
        self.back = ipw.Button(description="◀ round", tooltip="To the end of the round before", layout=_button())
        self.forth = ipw.Button(description="round ▶", tooltip="To the end of the next round", layout=_button())
        self.said = ipw.HTML()
        self.said.add_class("sv-said")
        self.steps.observe(self._scrubbed, "value")
        self.back.on_click(lambda _: self.to_round(-1))
        self.forth.on_click(lambda _: self.to_round(+1))
        row = ipw.HBox(
            [self.play, self.back, self.forth, self.steps], layout=ipw.Layout(align_items="center", width="100%")
        )
        row.add_class("sv-playback")
        self.box = ipw.VBox([self.view, row, self.said], layout=ipw.Layout(width="100%", overflow="visible"))

    def set_model(self, num_layers: int) -> None:
        """Empty, for a model of `num_layers` layers."""
        self.view.set_figure(blank_staircase(num_layers))
        self.start(num_layers, 0, self._text_of)

    def start(self, num_layers: int, capacity: int, text_of: Callable[[int, int], str]) -> None:
        """A decode of up to `capacity` positions begins; `text_of` gives a token's text by position and token id."""
        with self._lock:
            self._num_layers, self._capacity = num_layers, max(capacity, 1) + 1
            self._text_of = text_of
            self._events: Sequence[ev.Event] = ()
            self._ends: list[int] = []  # numbers of events after which there is something to see
            self._commits_due = 0
            self._seen = 0
            self._window = 0
            self._selected = None
            self._rewind()
            self._lock_controls(True)
            self._draw("")

    def follow(self, events: Sequence[ev.Event], final: bool) -> None:
        """Show the newest of `events`, all events so far; `final`: none are to come for now, play-back may begin."""
        with self._lock:
            self._events = events
            self._advance(len(events))
            said = narrate(events[self.place - 1], self._text_of) if final and self.place else ""
            self._draw(said)
            if final:
                self._find_steps()
                last = len(self._ends)
                self.play.max = self.steps.max = last
                self._moving = True
                self.play.value = self.steps.value = last
                self._moving = False
            self._lock_controls(not final)

    def to_round(self, by: int) -> None:
        """To the end of the round before or after the place that is shown."""
        with self._lock:
            shown = self.steps.value
            verdicts = [
                step
                for step, count in enumerate(self._ends, start=1)
                if isinstance(self._events[count - 1], ev.Verified | ev.Committed) and count <= len(self._events)
            ]
            candidates = [step for step in verdicts if (step > shown if by > 0 else step < shown)]
            if candidates:
                self.play.value = self.steps.value = candidates[0] if by > 0 else candidates[-1]

    def show_position(self, position: int) -> None:
        """Move the window to a position, and frame its column."""
        with self._lock:
            self._selected = position
            self._window = staircase_window(position, self._capacity, self._window)
            self._draw(None)

    def _rewind(self) -> None:
        self._grid = StaircaseGrid(self._num_layers, self._capacity)
        self._tokens: dict[int, int] = {}
        self.place = 0

    def _advance(self, place: int) -> None:
        """Apply events up to number `place`."""
        if place < self.place:
            self._rewind()
        for event in self._events[self.place : place]:
            self._grid.apply(event)
            self._learn(event)
        self.place = place
        self._window = staircase_window(self._grid.newest + 1, self._capacity, self._window)

    def _learn(self, event: ev.Event) -> None:
        """Which token stands at which position, as far as it is known at this place."""
        match event:
            case ev.DecodeStarted():
                self._tokens = dict(enumerate(event.prompt_ids))
            case ev.ExitCheck(exited=True):
                self._tokens[event.position + 1] = event.token_id
            case ev.Committed():
                self._tokens[event.position] = event.token_id

    def _narrated(self) -> str:
        """The last event that is shown, in words; of a round's commits, the verdict before them."""
        place = self.place - 1
        while place > 0 and isinstance(event := self._events[place], ev.Committed) and event.round is not None:
            place -= 1
        return narrate(self._events[place], self._text_of) if place >= 0 else "Before the prompt."

    def _find_steps(self) -> None:
        for index in range(self._seen, len(self._events)):
            event = self._events[index]
            if isinstance(event, ev.Verified):
                self._commits_due = event.accepted + (event.correction is not None or event.bonus is not None)
            elif isinstance(event, ev.Committed) and self._commits_due:
                self._commits_due -= 1
                if self._commits_due:
                    continue
            if ends_step(event, self._commits_due) or isinstance(event, ev.LayersRan):
                self._ends.append(index + 1)
        self._seen = len(self._events)

    def _scrubbed(self, change: Any) -> None:
        with self._lock:
            if self._moving or self.steps.disabled:
                return
            place = self._ends[change.new - 1] if change.new else 0
            self._advance(place)
            self._draw(self._narrated())

    def _draw(self, said: str | None) -> None:
        stop = min(self._window + WINDOW, self._capacity)
        known = range(self._window, min(stop, self._grid.newest + 2))
        labels = [self._text_of(place, self._tokens[place]) if place in self._tokens else "" for place in known]
        layout = staircase_layout(labels, self._window)
        layout["shapes"] = [] if self._selected is None else [_frame(self._selected, self._num_layers)]
        self.view.update(staircase_data(self._grid, self._window, stop), layout)
        if said is not None and (said or self.said.value):
            self.said.value = html.escape(said)

    def _lock_controls(self, locked: bool) -> None:
        for control in (self.play, self.steps, self.back, self.forth):
            if control.disabled != locked:
                control.disabled = locked


def _frame(position: int, num_layers: int) -> dict[str, Any]:
    line = {"color": "#ff8c00", "width": 3}
    ends = {"x0": position - 0.5, "x1": position + 0.5, "y0": 0.4, "y1": num_layers + 0.6}
    return {"type": "rect", **ends, "line": line, "fillcolor": "rgba(0,0,0,0)"}


def _button() -> ipw.Layout:
    return ipw.Layout(width="84px", height="30px")
