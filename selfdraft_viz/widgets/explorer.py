"""`Explorer`: self-draft decoding of one model, live, under the hand of whoever looks at it."""

from __future__ import annotations

import html
import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

import ipywidgets as ipw

from selfdraft_viz.errors import SelfDraftError
from selfdraft_viz.settings import Sampling, Settings
from selfdraft_viz.widgets.kernel import LoopProbe, this_cell
from selfdraft_viz.widgets.prompt_controls import PromptControls
from selfdraft_viz.widgets.pulse import Pulse
from selfdraft_viz.widgets.session import Session
from selfdraft_viz.widgets.settings_controls import SettingsControls
from selfdraft_viz.widgets.transport import Transport
from selfdraft_viz.widgets.views import Views

if TYPE_CHECKING:
    from selfdraft_viz.model import Comparison, Model
    from selfdraft_viz.trace import Trace

_EXPLORERS: weakref.WeakSet[Explorer] = weakref.WeakSet()


class Explorer(ipw.VBox):
    """A live explorer of self-draft decoding.

        explorer = sv.Explorer(model)
        explorer                                 # in a notebook: shows it
        explorer.run(); explorer.wait()          # or from Python, with or without a notebook
        explorer.trace.summary()

    Decoding runs in one background thread; settings that change while it runs hold from the next decision on.

    Args:
        model: what `selfdraft_viz.load` returns.
        prompt: text or token ids; None = an example.
        settings: None = the model's preset.
        max_new_tokens: at most this many.
        sampling: None = greedy.
        check: after each decode, run ordinary decoding on the same prompt, to compare the tokens and the speed.

    Raises:
        SettingsError: `settings` do not fit the model.
    """

    def __init__(
        self,
        model: Model,
        prompt: str | Sequence[int] | None = None,
        settings: Settings | None = None,
        *,
        max_new_tokens: int = 128,
        sampling: Sampling | None = None,
        check: bool = True,
    ) -> None:
        self._lock = threading.RLock()  # of what callers and controls do; never taken by a run
        self._session: Session | None = None
        self._model = model
        self._cell = this_cell()
        self._views = Views(model.exit_layers, model.num_layers, self._show_error)
        self._controls = SettingsControls(
            model.exit_layers, model.num_layers, settings or model.preset, self._settings_moved, self._refuse
        )
        self._prompt = PromptControls(prompt, max_new_tokens, sampling, model.tokenizer is not None)
        self._prompt.check.value = check
        self._transport = Transport(self.run, self.pause, self.step, self.stop, self._pace_moved, self._show_error)
        self._pulse = Pulse(LoopProbe())
        super().__init__(self._laid_out())
        self.add_class("sv-explorer")
        self._views.show_settings(self.settings)
        _stop_older_of(self._cell)
        _EXPLORERS.add(self)

    # What a user does; the buttons do the same.

    def run(self) -> Explorer:
        """Start decoding what the controls say, or go on with a paused run. Returns at once; see `wait`.

        A run that is under way is stopped first.

        Raises:
            PromptError, SettingsError: in words that the widget shows too; nothing is decoded then.
        """
        with self._lock:
            if self._session and self._session.run.state == "paused":
                self._session.run.resume()
                self._show_state()
            else:
                self._start(paused=False)
        return self

    def pause(self) -> Explorer:
        """Hold the run after the event that is under way; its clock stands still."""
        with self._lock:
            if self._session:
                self._session.run.pause()
        return self

    def step(self) -> Explorer:
        """One exit check, one pass with catch-up, or one verification; then hold. Starts a run where there is none."""
        with self._lock:
            if self._session is None or self._session.run.state == "ended":
                self._start(paused=True)
            assert self._session is not None
            self._session.run.step()
        return self

    def stop(self) -> Explorer:
        """End the run within an event. Returns when its thread is gone."""
        with self._lock:
            if self._session:
                self._session.run.stop()
        return self

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the run has ended, its check included. An interrupt stops the run.

        Args:
            timeout: seconds; None = as long as it takes.

        Returns:
            Whether it has ended: False where the time ran out, or the run is paused.

        Raises:
            Exception: whatever the decode failed with.
        """
        session = self._session
        if session is None:
            return True
        try:
            ended = session.run.wait(timeout)
        except KeyboardInterrupt:
            session.run.stop()
            raise
        if ended and session.run.error is not None:
            raise session.run.error
        return ended

    def select(self, position: int) -> Explorer:
        """Select the token at `position` in every view.

        Raises:
            ValueError: no new token stands there.
        """
        self._views.select(position)
        return self

    # What a user reads and sets.

    @property
    def model(self) -> Model:
        return self._model

    @property
    def settings(self) -> Settings:
        """What the controls show. Setting it moves the controls, and a running decode takes it over."""
        return self._controls.settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        with self._lock:
            try:
                self._controls.set(settings)
            except SelfDraftError as error:
                self._refuse(str(error))
                raise
            self._settings_moved()

    @property
    def prompt(self) -> str | tuple[int, ...]:
        return self._prompt.prompt

    @prompt.setter
    def prompt(self, prompt: str | Sequence[int]) -> None:
        self._prompt.text.value = prompt if isinstance(prompt, str) else " ".join(map(str, prompt))

    @property
    def max_new_tokens(self) -> int:
        return self._prompt.max_new_tokens.value

    @max_new_tokens.setter
    def max_new_tokens(self, max_new_tokens: int) -> None:
        self._prompt.max_new_tokens.value = max_new_tokens

    @property
    def sampling(self) -> Sampling | None:
        return self._prompt.sampling

    @sampling.setter
    def sampling(self, sampling: Sampling | None) -> None:
        self._prompt.set_sampling(sampling)

    @property
    def check(self) -> bool:
        """Whether ordinary decoding is run after each decode, to compare."""
        return self._prompt.check.value

    @check.setter
    def check(self, check: bool) -> None:
        self._prompt.check.value = check

    @property
    def seconds_per_step(self) -> float:
        """How long a run holds after each step, so that an audience can follow; 0 = not at all."""
        return self._transport.pace.value

    @seconds_per_step.setter
    def seconds_per_step(self, seconds: float) -> None:
        self._transport.pace.value = seconds

    @property
    def state(self) -> str:
        """ready, running, paused or ended."""
        return self._session.run.state if self._session else "ready"

    @property
    def selected(self) -> int | None:
        """The selected position."""
        return self._views.selected

    @property
    def trace(self) -> Trace | None:
        """The trace of the run so far; None before the first."""
        return self._session.trace if self._session else None

    @property
    def comparison(self) -> Comparison | None:
        """The run and ordinary decoding of the same; None where they have not been compared (yet)."""
        return self._session.comparison if self._session else None

    @property
    def equal(self) -> bool | None:
        """Whether the tokens are those of ordinary decoding, as checked; None where that is not known (yet)."""
        return self._session.equal if self._session else None

    @property
    def speedup(self) -> float | None:
        """Ordinary seconds per token / self-draft seconds per token, measured on this prompt; None before that."""
        return self._session.speedup if self._session else None

    def close(self) -> None:
        """Stop the run and take the widget out of every view."""
        if hasattr(self, "_lock"):
            self.stop()
        super().close()

    # Behind it.

    def _start(self, paused: bool) -> None:
        if self._session:
            self._session.run.stop()
        try:
            session = Session(
                self._model,
                self.prompt,
                lambda: self._controls.settings,
                self.max_new_tokens,
                self.sampling,
                self.check,
                self._frame,
                self._pulse.wanted,
                paused,
            )
        except SelfDraftError as error:
            self._refuse(str(error))
            raise
        session.run.seconds_per_step = self.seconds_per_step
        self._session = session
        self._views.start(session, self.settings)
        self._show_state()
        session.run.start()

    def _frame(self, session: Session, whole: bool) -> None:
        """Called in the run's thread."""
        self._views.frame(session, whole)
        if session is self._session:
            if session.run.error is not None:
                self._show_error(session.run.error)
            if whole:
                self._show_state()

    def _show_state(self) -> None:
        state = self.state
        self._transport.show(state)
        self._prompt.lock(state in ("running", "paused"))

    def _settings_moved(self) -> None:
        self._views.readout.error = ""
        self._views.show_settings(self.settings)

    def _pace_moved(self, seconds: float) -> None:
        if self._session:
            self._session.run.seconds_per_step = seconds

    def _refuse(self, message: str) -> None:
        self._views.readout.error = message

    def _show_error(self, error: BaseException) -> None:
        self._refuse(str(error) if isinstance(error, SelfDraftError) else f"{type(error).__name__}: {error}")

    def _laid_out(self) -> list[ipw.Widget]:
        facts = ipw.HTML(f'<div class="sv-facts"><b>Self-draft decoding</b>{html.escape(self._facts())}</div>')
        side = ipw.VBox(
            [
                _heading("Exits"),
                self._controls.box,
                _heading("Sampling"),
                self._prompt.sampling_box,
                self._views.side,
            ]
        )
        side.add_class("sv-side")
        main = ipw.Box([side, self._views.main])
        main.add_class("sv-main")
        return [facts, self._prompt.prompt_box, self._transport.box, main, self._pulse]

    def _facts(self) -> str:
        model = self._model
        what = model.describe()
        exits = ", ".join(map(str, model.exit_layers))
        device = what["device"] if what["device"] != "cpu" else f"cpu, {_threads()}"
        return (
            f"{what['id']}: {model.num_layers} layers, exits after {exits} ({what['heads']} heads), "
            f"running on {device}, {what['dtype']}"
        )


def _threads() -> str:
    import torch

    threads = torch.get_num_threads()
    return "1 thread" if threads == 1 else f"{threads} threads"


def _heading(text: str) -> ipw.HTML:
    heading = ipw.HTML(text)
    heading.add_class("sv-heading")
    return heading


def _stop_older_of(cell: tuple[str, str] | None) -> None:
    """Stop what an earlier execution of the same cell left running."""
    if cell is None:
        return
    for explorer in list(_EXPLORERS):
        if explorer._cell is not None and explorer._cell[0] == cell[0] and explorer._cell[1] != cell[1]:
            explorer.stop()
