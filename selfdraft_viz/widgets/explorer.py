"""`Explorer`: self-draft decoding of one model, live, under the hand of whoever looks at it."""

from __future__ import annotations

import html
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ipywidgets as ipw

from selfdraft_viz.errors import SelfDraftError
from selfdraft_viz.events import Event
from selfdraft_viz.plots.speed import WINDOW
from selfdraft_viz.settings import Sampling, Settings
from selfdraft_viz.widgets.kernel import LoopProbe, this_cell
from selfdraft_viz.widgets.live import LiveTables
from selfdraft_viz.widgets.live_figure import LiveDashboard
from selfdraft_viz.widgets.prompt_controls import PromptControls
from selfdraft_viz.widgets.pulse import Pulse
from selfdraft_viz.widgets.readout import Readout, tiles
from selfdraft_viz.widgets.run import Run
from selfdraft_viz.widgets.settings_controls import SettingsControls
from selfdraft_viz.widgets.text_view import TextView

if TYPE_CHECKING:
    from selfdraft_viz.model import Comparison, Model
    from selfdraft_viz.trace import Trace

_EXPLORERS: weakref.WeakSet[Explorer] = weakref.WeakSet()


@dataclass
class _Session:
    """A run and what has been read of it."""

    run: Run
    tables: LiveTables
    plain: LiveTables
    max_new_tokens: int


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
        self._drawing = threading.RLock()
        self._session: _Session | None = None
        self._trace: tuple[int, Trace] | None = None
        self._model = model
        self._cell = this_cell()
        self._controls = SettingsControls(
            model.exit_layers, model.num_layers, settings or model.preset, self._settings_moved, self._refuse
        )
        self._prompt = PromptControls(prompt, max_new_tokens, sampling, model.tokenizer is not None)
        self._prompt.check.value = check
        self._text = TextView(model.exit_layers, model.num_layers)
        self._readout = Readout(tiles=tiles(None, max_new_tokens, model.num_layers, None, None), status="ready")
        self._dashboard = LiveDashboard(model.num_layers)
        self._pulse = Pulse(LoopProbe())
        super().__init__(self._laid_out())
        self.add_class("sv-explorer")
        self._show_buttons()
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
            else:
                self._start(paused=False)
            self._show_buttons()
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
        return self._prompt.check.value

    @check.setter
    def check(self, check: bool) -> None:
        self._prompt.check.value = check

    @property
    def state(self) -> str:
        """ready, running, paused or ended."""
        return self._session.run.state if self._session else "ready"

    @property
    def trace(self) -> Trace | None:
        """The trace of the run so far; None before the first."""
        session = self._session
        if session is None or not session.run.events:
            return None
        events = list(session.run.events)
        if self._trace is None or self._trace[0] != len(events):
            self._trace = (len(events), self._recorded(events))
        return self._trace[1]

    @property
    def comparison(self) -> Comparison | None:
        """The run and ordinary decoding of the same; None where they have not been compared (yet)."""
        from selfdraft_viz.model import Comparison

        session = self._session
        if session is None or session.run.stage != "done" or not session.run.plain_events:
            return None
        ours = self.trace
        assert ours is not None
        return Comparison(ours, self._recorded(list(session.run.plain_events)))

    @property
    def equal(self) -> bool | None:
        """Whether the tokens are those of ordinary decoding, as checked; None where that is not known (yet)."""
        session = self._session
        if session is None or session.run.stage != "done" or not session.run.plain_events:
            return None
        return session.tables.token_ids == session.plain.token_ids

    @property
    def speedup(self) -> float | None:
        """Ordinary seconds per token / self-draft seconds per token, measured on this prompt; None before that."""
        session = self._session
        if session is None or session.run.stage != "done":
            return None
        plain, ours = session.plain.seconds_per_token, session.tables.seconds_per_token
        return plain / ours if plain and ours else None

    def close(self) -> None:
        """Stop the run and take the widget out of every view."""
        if hasattr(self, "_lock"):
            self.stop()
        super().close()

    # A run.

    def _start(self, paused: bool) -> None:
        if self._session:
            self._session.run.stop()
        try:
            prompt, max_new_tokens, sampling = self.prompt, self.max_new_tokens, self.sampling
            model = self._model
            stream = model.stream(
                prompt, lambda: self._controls.settings, max_new_tokens=max_new_tokens, sampling=sampling
            )
            prompt_ids = model.encode(prompt)
        except SelfDraftError as error:
            self._refuse(str(error))
            raise
        pieces = model.recorder().pieces

        def ordinary() -> Iterator[Event]:
            return model.stream_plain(prompt_ids, max_new_tokens=max_new_tokens, sampling=sampling)

        def frame(whole: bool) -> None:
            self._frame(session, whole)

        run = Run(stream, ordinary if self.check else None, frame, self._pulse.wanted, paused)
        session = _Session(run, LiveTables(pieces), LiveTables(pieces), max_new_tokens)
        with self._drawing:
            self._session = session
            self._readout.error = self._readout.verdict = ""
            self._text.clear(prompt if isinstance(prompt, str) else pieces.decode(prompt_ids), hint="")
            self._dashboard.start(len(prompt_ids), max_new_tokens, self.settings.max_width)
            self._prompt.lock(True)
        run.start()

    def _recorded(self, events: Sequence[Event]) -> Trace:
        recorder = self._model.recorder()
        for event in events:
            recorder.add(event)
        return recorder.trace()

    # Drawing. One thread at a time: that of the run while there is one.

    def _frame(self, session: _Session, whole: bool) -> None:
        with self._drawing:
            if session is not self._session:
                return
            run, tables, plain = session.run, session.tables, session.plain
            tables.read(run.events)
            plain.read(run.plain_events)
            if run.stage == "checking" and not whole:
                self._dashboard.show_speed(tables, plain)
            else:
                self._text.update(tables)
                self._dashboard.show(tables, plain)
            self._show_figures(session)
            if whole:
                self._show_buttons()

    def _show_figures(self, session: _Session) -> None:
        run, tables = session.run, session.tables
        seconds = tables.tokens["seconds"]
        recent = seconds[-WINDOW - 1 :]
        now = (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else None
        with self._readout.hold_sync():
            self._readout.tiles = tiles(tables, session.max_new_tokens, self._model.num_layers, now, self.speedup)
            self._readout.status = _status(session)
            self._readout.verdict = self._verdict()
            if run.error is not None:
                self._readout.error = _in_words(run.error)
            elif tables.refusal is not None:
                self._readout.error = tables.refusal

    def _verdict(self) -> str:
        if self.equal is None:
            return ""
        session = self._session
        assert session is not None
        count = len(session.plain.token_ids)
        if self.equal:
            return f"✓ Equal: all {count} new tokens are those of ordinary decoding."
        pairs = zip(session.tables.token_ids, session.plain.token_ids, strict=False)
        first = next((index for index, (ours, theirs) in enumerate(pairs) if ours != theirs), count)
        dtype = self._model.describe()["dtype"]
        return (
            f"✗ Different from new token {first} on: in {dtype} a near-tie between the two best tokens "
            "can fall either way."
        )

    def _show_buttons(self) -> None:
        state = self.state
        self._run_button.description = "Resume" if state == "paused" else "Run"
        self._run_button.disabled = state == "running"
        self._pause_button.disabled = state != "running"
        self._stop_button.disabled = state in ("ready", "ended")
        self._prompt.lock(state in ("running", "paused"))

    # Controls.

    def _settings_moved(self) -> None:
        self._readout.error = ""

    def _refuse(self, message: str) -> None:
        self._readout.error = message

    def _pressed(self, action: Callable[[], Any]) -> Callable[[Any], None]:
        def handler(_: Any) -> None:
            try:
                action()
            except Exception as error:  # shown in words; a button has nobody else to tell
                self._readout.error = _in_words(error)

        return handler

    def _laid_out(self) -> list[ipw.Widget]:
        size = ipw.Layout(width="112px", height="34px")
        self._run_button = ipw.Button(description="Run", icon="play", button_style="primary", layout=size)
        self._pause_button = ipw.Button(description="Pause", icon="pause", layout=size)
        self._step_button = ipw.Button(
            description="Step",
            icon="step-forward",
            layout=size,
            tooltip="One exit check, one catch-up or one verification",
        )
        self._stop_button = ipw.Button(description="Stop", icon="stop", layout=size)
        buttons = {
            self._run_button: self.run,
            self._pause_button: self.pause,
            self._step_button: self.step,
            self._stop_button: self.stop,
        }
        for button, action in buttons.items():
            button.on_click(self._pressed(action))
        row = ipw.HBox(list(buttons))
        row.add_class("sv-buttons")
        facts = ipw.HTML(f'<div class="sv-facts"><b>Self-draft decoding</b>{html.escape(self._facts())}</div>')
        side = ipw.VBox([_heading("Exits"), self._controls.box, _heading("Sampling"), self._prompt.sampling_box])
        side.add_class("sv-side")
        views = ipw.VBox([self._readout, self._text, self._dashboard])
        views.add_class("sv-views")
        main = ipw.Box([side, views])
        main.add_class("sv-main")
        return [facts, self._prompt.prompt_box, row, main, self._pulse]

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


def _status(session: _Session) -> str:
    run, tables = session.run, session.tables
    count = tables.new_tokens
    if run.error is not None:
        return f"Failed after {count} new tokens."
    if run.state == "paused":
        return f"Paused after {count} new tokens."
    if run.state == "ended":
        if run.stopped and run.stage == "checking":
            return f"Decoded {count} new tokens; the check was stopped, so equality is not known."
        if run.stopped:
            return f"Stopped after {count} new tokens; not compared with ordinary decoding."
        reason = "at the end of the text" if tables.finish_reason == "end of sequence" else "at the length asked for"
        checked = "" if run.plain_events else " Not compared with ordinary decoding."
        return f"Done: {count} new tokens, {reason}.{checked}"
    if run.stage == "checking":
        return f"Checking: ordinary decoding of the same prompt, token {session.plain.new_tokens} of {count}."
    return f"Decoding: {count} of at most {session.max_new_tokens} new tokens."


def _in_words(error: BaseException) -> str:
    return str(error) if isinstance(error, SelfDraftError) else f"{type(error).__name__}: {error}"


def _stop_older_of(cell: tuple[str, str] | None) -> None:
    """Stop what an earlier execution of the same cell left running."""
    if cell is None:
        return
    for explorer in list(_EXPLORERS):
        if explorer._cell is not None and explorer._cell[0] == cell[0] and explorer._cell[1] != cell[1]:
            explorer.stop()
