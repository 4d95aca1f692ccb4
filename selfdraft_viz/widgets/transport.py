"""Run, Pause, Step, Stop, and how fast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as ipw

from selfdraft_viz.widgets.slider import Slider


class Transport:
    """Args:
        run, pause, step, stop: what the buttons do.
        paced: called with the seconds to hold after each step.
        failed: called with an exception that an action ended in; a button has nobody else to tell.

    Attributes:
        box: the widget.
        pace: the slider of speed, in seconds to hold after each step.
        told: called with the line of Python that does what a control has done.
    """

    def __init__(
        self,
        run: Callable[[], Any],
        pause: Callable[[], Any],
        step: Callable[[], Any],
        stop: Callable[[], Any],
        paced: Callable[[float], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._failed = failed
        self.run = self._button("Run", "play", run, "Decode what the controls say")
        self.run.button_style = "primary"
        self.pause = self._button("Pause", "pause", pause, "Hold after the event that is under way")
        self.step = self._button("Step", "step-forward", step, "One exit check, one catch-up or one verification")
        self.stop = self._button("Stop", "stop", stop, "End the run")
        self.pace = Slider(
            "hold each step", spoken="seconds to hold after each step", min=0.0, max=1.5, step=0.05,
            help="Seconds to hold after each step, so that an audience can follow; 0 is full speed",
        )  # fmt: skip
        self.told: Callable[[str], None] = lambda code: None
        self.pace.observe(lambda change: self._paced(change.new, paced), "value")
        self.box = ipw.HBox([self.run, self.pause, self.step, self.stop, self.pace])
        self.box.add_class("sv-buttons")
        self.show("ready")

    def show(self, state: str) -> None:
        """ready, running, paused or ended."""
        for button, name, value in (
            (self.run, "description", "Resume" if state == "paused" else "Run"),
            (self.run, "disabled", state == "running"),
            (self.pause, "disabled", state != "running"),
            (self.stop, "disabled", state in ("ready", "ended")),
        ):
            if getattr(button, name) != value:
                setattr(button, name, value)

    def _button(self, name: str, icon: str, action: Callable[[], Any], tooltip: str) -> ipw.Button:
        button = ipw.Button(
            description=name, icon=icon, tooltip=tooltip, layout=ipw.Layout(width="112px", height="34px")
        )

        def pressed(_: Any) -> None:
            self.told(f"explorer.{name.lower()}()")
            try:
                action()
            except Exception as error:
                self._failed(error)

        button.on_click(pressed)
        return button

    def _paced(self, seconds: float, paced: Callable[[float], None]) -> None:
        paced(seconds)
        self.told(f"explorer.seconds_per_step = {seconds:g}")
