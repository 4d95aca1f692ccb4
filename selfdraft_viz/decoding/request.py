"""What both kinds of decoding are asked for, and the start that they share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from selfdraft_viz.events import Committed, Event, LayersRan, Phase
from selfdraft_viz.heads import ExitHeads
from selfdraft_viz.layered import LayeredModel, LayerRun, Staircase
from selfdraft_viz.noise import Chooser, chooser_for
from selfdraft_viz.settings import Sampling, Settings

Detail: TypeAlias = Literal["tokens", "checks", "full"]
"""How much a decode tells, and so costs: committed tokens and rounds only; layer passes and exit checks too; the
un-annealed confidence of every check as well."""

SettingsSource: TypeAlias = Settings | Callable[[], Settings]

_PREFILL_ROWS = 1024  # longer prompts pass in pieces, which bounds the size of the mask


@dataclass(frozen=True)
class Request:
    """One decode, checked: what `Model.stream` hands to the decoders."""

    model: LayeredModel
    heads: ExitHeads
    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    end_of_sequence_ids: frozenset[int]
    sampling: Sampling | None = None
    detail: Detail = "full"
    top_tokens: int = 0


class Clock:
    """Decoding time: seconds since the first event was asked for, less what the consumer of the events took."""

    def __init__(self) -> None:
        self._origin = 0.0
        self._held_since = 0.0

    def start(self) -> None:
        self._origin = time.perf_counter()

    def now(self) -> float:
        return time.perf_counter() - self._origin

    def hold(self) -> None:
        self._held_since = time.perf_counter()

    def release(self) -> None:
        self._origin += time.perf_counter() - self._held_since


def timed(events: Iterator[Event], clock: Clock) -> Iterator[Event]:
    """`events`, with the clock standing still while the consumer has the floor."""
    clock.start()
    for event in events:
        clock.hold()
        yield event
        clock.release()


class Sequence:
    """The tokens of a decode so far and the staircase under them. After the prefill and between rounds, every token but
    the newest has been through all layers."""

    def __init__(self, request: Request, clock: Clock) -> None:
        self.request = request
        self.clock = clock
        self.model = request.model
        self.chooser: Chooser = chooser_for(request.sampling)
        self.tokens: list[int] = list(request.prompt_ids)
        self.staircase: Staircase = request.model.open(len(request.prompt_ids) + request.max_new_tokens)
        self.finished: Literal["length", "end of sequence"] | None = None

    @property
    def remaining(self) -> int:
        """New tokens still allowed."""
        return len(self.request.prompt_ids) + self.request.max_new_tokens - len(self.tokens)

    def prefill(self) -> Iterator[Event]:
        """The prompt through all layers; its last row gives the first new token."""
        prompt = list(self.request.prompt_ids)
        for start in range(0, len(prompt), _PREFILL_ROWS):
            self.staircase.push(prompt[start : start + _PREFILL_ROWS])
            for run in self.staircase.advance(self.model.num_layers):
                yield from self.ran(run, None, "prefill", 0)
        logits = self.staircase.logits(len(prompt) - 1, len(prompt))
        (token,) = self.chooser.choose(logits, len(prompt))
        yield self.commit(token, "first", None, self.model.num_layers, None)

    def ran(self, run: LayerRun, round: int | None, phase: Phase, catch_up_rows: int) -> Iterator[Event]:
        if self.request.detail != "tokens":
            yield LayersRan(
                round,
                phase,
                run.first_layer,
                run.last_layer,
                run.first_position,
                run.stop_position,
                catch_up_rows,
                self.clock.now(),
            )

    def commit(self, token: int, kind, round: int | None, exit_depth: int, confidence: float | None) -> Committed:
        position = len(self.tokens)
        self.tokens.append(token)
        if token in self.request.end_of_sequence_ids:
            self.finished = "end of sequence"
        elif self.remaining == 0:
            self.finished = "length"
        return Committed(position, token, kind, round, exit_depth, confidence, self.clock.now())
