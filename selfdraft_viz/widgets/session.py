"""One decode that the views show: a live one, or one that a saved trace tells of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from selfdraft_viz.events import Event, ExitCheck
from selfdraft_viz.plots.replay import events_of
from selfdraft_viz.plots.speed import WINDOW
from selfdraft_viz.settings import Sampling, Settings
from selfdraft_viz.text import Pieces
from selfdraft_viz.widgets.live import LiveTables
from selfdraft_viz.widgets.run import Run, Stage, State

if TYPE_CHECKING:
    from selfdraft_viz.model import Comparison, Model
    from selfdraft_viz.trace import Trace


class Decode:
    """What views need to know of a decode.

    Attributes:
        num_layers, exit_layers: of the model.
        prompt, prompt_ids: as text and as tokens.
        max_new_tokens: what was asked for.
        tables, plain: what has been read of the decode, and of ordinary decoding.
        events: everything said so far.
        model: None where there is none.
    """

    num_layers: int
    exit_layers: tuple[int, ...]
    prompt: str
    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    tables: LiveTables
    plain: LiveTables
    model: Model | None = None

    @property
    def events(self) -> Sequence[Event]:
        raise NotImplementedError

    @property
    def state(self) -> State:
        return "ended"

    @property
    def stage(self) -> Stage:
        return "done"

    @property
    def settings(self) -> Settings | None:
        """The settings last in force."""
        raise NotImplementedError

    @property
    def trace(self) -> Trace | None:
        raise NotImplementedError

    @property
    def plain_trace(self) -> Trace | None:
        """Ordinary decoding of the same; None where it was not run to its end."""
        return None

    def read(self) -> None:
        """Take in what has been said since."""

    def status(self) -> str:
        """What it is doing, in words."""
        raise NotImplementedError

    @property
    def capacity(self) -> int:
        """Positions there can be."""
        return len(self.prompt_ids) + self.max_new_tokens

    @property
    def compared(self) -> bool:
        """Whether ordinary decoding has been run to its end."""
        return False

    @property
    def equal(self) -> bool | None:
        """Whether the tokens are those of ordinary decoding; None where that is not known."""
        return self.tables.token_ids == self.plain.token_ids if self.compared else None

    @property
    def speedup(self) -> float | None:
        """Ordinary seconds per token / self-draft seconds per token; None before both are measured."""
        if not self.compared:
            return None
        plain, ours = self.plain.seconds_per_token, self.tables.seconds_per_token
        return plain / ours if plain and ours else None

    @property
    def speed_now(self) -> float | None:
        """Tokens per second of decoding time, over the last `WINDOW` tokens; see `plots.speed`."""
        seconds, rounds = self.tables.tokens["seconds"], self.tables.tokens["round"]
        last = len(seconds) - 1
        since = max(last - WINDOW + 1, 0)
        while since and rounds[since] is not None and rounds[since - 1] == rounds[since]:
            since -= 1  # a round commits its tokens all at once: from its beginning on
        since = max(since - 1, 0)
        return (last - since) / (seconds[last] - seconds[since]) if since < last else None

    def checks_of(self, position: int) -> list[ExitCheck]:
        """The exit checks whose outcome the token at `position` is, shallow first; none for prompt and first token."""
        index = position - len(self.prompt_ids)
        rounds = self.tables.tokens["round"]
        if not 0 <= index < len(rounds):
            return []
        number = rounds[index]
        return [check for check in self.tables.checks_at.get(position - 1, []) if check.round == number]

    def verdict(self) -> str:
        """Whether the text equals ordinary decoding, in words; empty where that is not known."""
        if self.equal is None:
            return ""
        count = self.plain.new_tokens
        if self.equal:
            return f"✓ Equal: all {count} new tokens are those of ordinary decoding."
        pairs = zip(self.tables.token_ids, self.plain.token_ids, strict=False)
        first = next((index for index, (ours, theirs) in enumerate(pairs) if ours != theirs), count)
        dtype = "this dtype" if self.model is None else self.model.describe()["dtype"]
        return (
            f"✗ Different from new token {first} on: in {dtype} a near-tie between the two best tokens "
            "can fall either way."
        )


class Session(Decode):
    """A live decode, from its request on.

    Args:
        model: what decodes.
        prompt: text or token ids.
        settings: read at every decision.
        max_new_tokens: at most this many.
        sampling: None = greedy.
        check: run ordinary decoding afterwards, to compare.
        frame: called in the run's thread when there is something to draw; see `Run`.
        wanted: the run stops when it returns False.
        paused: start paused.

    Attributes:
        run: what goes on in the background.

    Raises:
        PromptError, SettingsError: before anything is decoded.
    """

    model: Model

    def __init__(
        self,
        model: Model,
        prompt: str | Sequence[int],
        settings: Callable[[], Settings],
        max_new_tokens: int,
        sampling: Sampling | None,
        check: bool,
        frame: Callable[[Session, bool], None],
        wanted: Callable[[], bool],
        paused: bool,
    ) -> None:
        stream = model.stream(prompt, settings, max_new_tokens=max_new_tokens, sampling=sampling)
        self.model = model
        self.num_layers, self.exit_layers = model.num_layers, model.exit_layers
        self.prompt_ids = model.encode(prompt)
        self.max_new_tokens = max_new_tokens
        self._settings = settings
        pieces = model.recorder().pieces
        self.prompt = prompt if isinstance(prompt, str) else pieces.decode(self.prompt_ids)
        self.tables, self.plain = LiveTables(pieces), LiveTables(pieces)
        self._trace: tuple[int, Trace] | None = None

        def ordinary() -> Iterator[Event]:
            return model.stream_plain(self.prompt_ids, max_new_tokens=max_new_tokens, sampling=sampling)

        self.run = Run(stream, ordinary if check else None, lambda whole: frame(self, whole), wanted, paused)

    @property
    def events(self) -> Sequence[Event]:
        return self.run.events

    @property
    def state(self) -> State:
        return self.run.state

    @property
    def stage(self) -> Stage:
        return self.run.stage

    @property
    def settings(self) -> Settings:
        return self.tables.settings or self._settings()

    def read(self) -> None:
        self.tables.read(self.run.events)
        self.plain.read(self.run.plain_events)

    @property
    def trace(self) -> Trace | None:
        """The trace so far; None before the first event."""
        events = list(self.run.events)
        if not events:
            return None
        if self._trace is None or self._trace[0] != len(events):
            self._trace = (len(events), self._recorded(events))
        return self._trace[1]

    @property
    def compared(self) -> bool:
        return self.run.stage == "done" and bool(self.run.plain_events)

    @property
    def plain_trace(self) -> Trace | None:
        return self._recorded(list(self.run.plain_events)) if self.compared else None

    @property
    def comparison(self) -> Comparison | None:
        from selfdraft_viz.model import Comparison

        ours, plain = self.trace, self.plain_trace
        return None if ours is None or plain is None else Comparison(ours, plain)

    def status(self) -> str:
        run, count = self.run, self.tables.new_tokens
        if run.error is not None:
            return f"Failed after {count} new tokens."
        if run.state == "paused":
            return f"Paused after {count} new tokens."
        if run.state == "ended":
            if run.stopped and run.stage == "checking":
                return f"Decoded {count} new tokens; the check was stopped, so equality is not known."
            if run.stopped:
                return f"Stopped after {count} new tokens; not compared with ordinary decoding."
            ended = self.tables.finish_reason == "end of sequence"
            reason = "at the end of the text" if ended else "at the length asked for"
            checked = "" if run.plain_events else " Not compared with ordinary decoding."
            return f"Done: {count} new tokens, {reason}.{checked}"
        if run.stage == "checking":
            return f"Checking: ordinary decoding of the same prompt, token {self.plain.new_tokens} of {count}."
        return f"Decoding: {count} of at most {self.max_new_tokens} new tokens."

    def _recorded(self, events: Sequence[Event]) -> Trace:
        recorder = self.model.recorder()
        for event in events:
            recorder.add(event)
        return recorder.trace()


class Recorded(Decode):
    """A decode that a trace tells of: no model, and no torch.

    Args:
        trace: of self-draft decoding.

    Raises:
        ValueError: it is a trace of ordinary decoding, in which there is nothing to explore.
    """

    def __init__(self, trace: Trace) -> None:
        if trace.method != "self-draft":
            raise ValueError(
                f"a trace of {trace.method} decoding has no drafts to show: open one of self-draft decoding"
            )
        self._recorded = trace
        self._events = events_of(trace)
        self.num_layers, self.exit_layers = trace.num_layers, trace.exit_layers
        self.prompt_ids = tuple(trace.prompt_ids)
        prompt = trace.tokens[trace.tokens["kind"] == "prompt"]
        self.prompt = "".join(prompt["text"])
        self.max_new_tokens = max(trace.max_new_tokens, len(trace.token_ids))
        self.tables, self.plain = LiveTables(Pieces(None)), LiveTables(Pieces(None))
        self.tables.know(_texts(trace))
        self.read()

    @property
    def events(self) -> Sequence[Event]:
        return self._events

    @property
    def settings(self) -> Settings | None:
        return self._recorded.settings

    @property
    def trace(self) -> Trace:
        return self._recorded

    def read(self) -> None:
        self.tables.read(self._events)

    def status(self) -> str:
        made = self._recorded.model
        where = f"{made.get('id', 'a model')} on {made.get('device', 'an unknown device')}"
        reason = self._recorded.finish_reason or "stopped"
        return f"A saved trace: {self.tables.new_tokens} new tokens of {where}, finished by: {reason}."


def _texts(trace: Trace) -> dict[tuple[int, int], str]:
    """The text of each token where it stood, or would have."""
    texts: dict[tuple[int, int], str] = {}
    checks = trace.exit_checks
    for position, token_id, text in zip(checks["position"] + 1, checks["token_id"], checks["text"], strict=True):
        texts[int(position), int(token_id)] = text
    for table in (trace.drafts, trace.tokens):
        for position, token_id, text in zip(table["position"], table["token_id"], table["text"], strict=True):
            texts[int(position), int(token_id)] = text
    return texts
