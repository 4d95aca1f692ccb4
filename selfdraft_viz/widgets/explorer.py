"""`Explorer`: self-draft decoding of one model, live, under the hand of whoever looks at it."""

from __future__ import annotations

import html
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as ipw

from selfdraft_viz.errors import PromptError, SelfDraftError
from selfdraft_viz.settings import Sampling, Settings
from selfdraft_viz.widgets.code_line import CodeLine, assignment, settings_change
from selfdraft_viz.widgets.files import FileControls
from selfdraft_viz.widgets.kernel import LoopProbe, this_cell
from selfdraft_viz.widgets.look import Look
from selfdraft_viz.widgets.model_controls import ModelControls
from selfdraft_viz.widgets.pins import COLUMNS
from selfdraft_viz.widgets.prompt_controls import PromptControls
from selfdraft_viz.widgets.pulse import Pulse
from selfdraft_viz.widgets.session import Decode, Recorded, Session
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
        self._decode: Decode | None = None
        self._cell = this_cell()
        self._code = CodeLine()
        self._pulse = Pulse(LoopProbe())
        self._transport = Transport(self.run, self.pause, self.step, self.stop, self._pace_moved, self._show_error)
        self._transport.told = self._tell
        self._loader = ModelControls(self._loaded, self._show_error)
        self._files = FileControls(self, self._tell, self._show_error)
        self._install(model, settings or model.preset, prompt, max_new_tokens, sampling, check)
        super().__init__(self._laid_out())
        self.add_class("sv-explorer")
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

    def look(self, position: int) -> list[Look]:
        """What every exit, and the last layer, say about the token at `position`: computed now, not while decoding."""
        return self._views.show_looks(position)

    def pin(self, name: str | None = None) -> Explorer:
        """Keep the run as it is at the moment, to compare: a row under the live one, and thin lines in its plots.

        Args:
            name: None = a number.

        Raises:
            ValueError: nothing has been decoded yet.
        """
        self._views.pin(name)
        return self

    def unpin(self, name: str | None = None) -> Explorer:
        """Let go of a pinned run; None = of all.

        Raises:
            ValueError: there is none of that name.
        """
        self._views.unpin(name)
        return self

    def open_trace(self, trace: Trace | str | Path) -> Explorer:
        """Show a saved trace in place of a run. A run that is under way is stopped.

        Raises:
            LoadError: the file cannot be read.
            ValueError: it is a trace of ordinary decoding.
        """
        from selfdraft_viz.trace import Trace as Saved

        decode = Recorded(trace if isinstance(trace, Saved) else Saved.load(trace))
        with self._lock:
            self.stop()
            self._session, self._decode = None, decode
            self._views.start(decode, decode.settings)
            self._views.frame(decode, True)
            self._show_state()
        return self

    def page(self) -> str:
        """The views as one HTML document, which opens without Python and without a network.

        Raises:
            ValueError: nothing has been decoded yet.
        """
        from selfdraft_viz.plots.page import page

        trace, decode = self.trace, self._decode
        if trace is None or decode is None:
            raise ValueError("there is nothing to save yet: run a decode first")
        pins = self._views.pins
        rows = [COLUMNS, *pins.table.rows] if len(pins) else []
        return page(trace, decode.plain_trace, pins.curves, rows, self.selected)

    def save(self, path: str | Path) -> Path:
        """Write the trace (`.parquet`) or the views (`.html`).

        Raises:
            ValueError: nothing has been decoded yet, or the name ends otherwise.
        """
        path = Path(path)
        if path.suffix == ".html":
            path.write_text(self.page(), encoding="utf-8")
            return path
        if path.suffix != ".parquet":
            raise ValueError(f"{path.name!r}: use a name that ends in .parquet (the trace) or .html (the views)")
        if self.trace is None:
            raise ValueError("there is nothing to save yet: run a decode first")
        return self.trace.save(path)

    # What a user reads and sets.

    @property
    def model(self) -> Model:
        """What decodes. Setting it stops a run, and starts afresh with that model's preset."""
        return self._model

    @model.setter
    def model(self, model: Model) -> None:
        with self._lock:
            self.stop()
            self._session = self._decode = None
            same_kind = (model.tokenizer is None) == (self._model.tokenizer is None)
            prompt = self._prompt.text.value if same_kind and model.tokenizer is not None else None
            self._install(model, model.preset, prompt, self.max_new_tokens, self.sampling, self.check)
            self.children = self._laid_out()
            self._show_state()

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
    def chat(self) -> bool:
        """Whether the prompt is wrapped in the tokenizer's chat template."""
        return self._prompt.chat.value

    @chat.setter
    def chat(self, chat: bool) -> None:
        if chat and not self._model.has_chat_template:
            raise PromptError(f"{self._model.name} has no chat template: leave chat at False")
        self._prompt.chat.value = chat

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
        """The trace of the run so far, or the one that was opened; None before the first."""
        return self._decode.trace if self._decode else None

    @property
    def comparison(self) -> Comparison | None:
        """The run and ordinary decoding of the same; None where they have not been compared (yet)."""
        return self._session.comparison if self._session else None

    @property
    def equal(self) -> bool | None:
        """Whether the tokens are those of ordinary decoding, as checked; None where that is not known (yet)."""
        return self._decode.equal if self._decode else None

    @property
    def speedup(self) -> float | None:
        """Ordinary seconds per token / self-draft seconds per token, measured on this prompt; None before that."""
        return self._decode.speedup if self._decode else None

    def close(self) -> None:
        """Stop the run and take the widget out of every view."""
        if hasattr(self, "_lock"):
            self.stop()
        super().close()

    # Behind it.

    def _install(
        self,
        model: Model,
        settings: Settings,
        prompt: str | Sequence[int] | None,
        max_new_tokens: int,
        sampling: Sampling | None,
        check: bool,
    ) -> None:
        """Controls and views for a model."""
        self._model = model
        self._views = Views(model.exit_layers, model.num_layers, self._show_error, self._tell)
        self._controls = SettingsControls(
            model.exit_layers, model.num_layers, settings, self._settings_moved, self._refuse, model.presets
        )
        self._known = settings
        self._prompt = PromptControls(
            prompt, max_new_tokens, sampling, model.tokenizer is not None, model.has_chat_template, self._prompt_moved
        )
        self._prompt.check.value = check
        self._views.show_settings(settings, model.exit_layers, model.num_layers)

    def _start(self, paused: bool) -> None:
        if self._session:
            self._session.run.stop()
        try:
            prompt = self.prompt
            shown = prompt if isinstance(prompt, str) else None
            session = Session(
                self._model,
                self._model.chat(prompt) if self.chat and isinstance(prompt, str) else prompt,
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
        if shown is not None and not self.chat:
            session.prompt = shown
        session.run.seconds_per_step = self.seconds_per_step
        self._session = self._decode = session
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
        self._views.show_settings(self.settings, self._model.exit_layers, self._model.num_layers)
        if self.settings != self._known:
            self._tell(settings_change(self._known, self.settings))
            self._known = self.settings

    def _prompt_moved(self, name: str, value: object) -> None:
        self._tell(assignment(name, value))

    def _pace_moved(self, seconds: float) -> None:
        if self._session:
            self._session.run.seconds_per_step = seconds

    def _loaded(self, model: Model, code: str) -> None:
        """Called in the loading thread."""
        self.model = model
        self._tell(code)

    def _tell(self, code: str) -> None:
        self._code.code = code

    def _refuse(self, message: str) -> None:
        self._views.readout.error = message

    def _show_error(self, error: BaseException) -> None:
        known = isinstance(error, (SelfDraftError, ValueError))
        self._refuse(str(error) if known else f"{type(error).__name__}: {error}")

    def _laid_out(self) -> list[ipw.Widget]:
        facts = ipw.HTML(f'<div class="sv-facts"><b>Self-draft decoding</b>{html.escape(self._facts())}</div>')
        model = ipw.Accordion([self._loader.box], titles=["Model"], selected_index=None)
        model.add_class("sv-fold")
        side = ipw.VBox(
            [
                _heading("Exits"),
                self._controls.box,
                self._files.settings_box,
                _heading("Sampling"),
                self._prompt.sampling_box,
                self._views.side,
            ]
        )
        side.add_class("sv-side")
        main = ipw.Box([side, self._views.main])
        main.add_class("sv-main")
        return [
            facts, model, self._prompt.prompt_box, self._transport.box, self._code, main, self._files.box, self._pulse,
        ]  # fmt: skip

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
