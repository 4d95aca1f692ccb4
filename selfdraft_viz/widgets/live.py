"""Tables that grow with the stream of events, under the column names of a trace.

A view of a running decode must not rebuild a trace for every frame. `LiveTables` reads each event once and appends to
plain columns, which the functions of `plots` take as they take a trace's DataFrames.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from selfdraft_viz import events as ev
from selfdraft_viz.settings import Settings
from selfdraft_viz.text import Pieces

_CONTEXT = 8  # tokens before a piece that its text can depend on


def _floats() -> array:
    return array("d")


def _integers() -> array:
    return array("q")


@dataclass
class PendingDraft:
    """A draft of the round that is running, or one that the last verdict threw away."""

    position: int
    token_id: int
    text: str
    exit_depth: int
    confidence: float
    outcome: str = "draft"


@dataclass
class LiveTables:
    """What a decode has said so far.

    Attributes:
        tokens, drafts, rounds, checks: columns as in `selfdraft_viz.trace.COLUMNS`; `tokens` holds new tokens only.
        checks_at: the exit checks of each row, over all rounds.
        sequence: token ids, prompt included.
        pending: drafts of the running round, oldest first.
        thrown_away: drafts that the last verdict rejected or dropped.
        layer_passes, drafted, accepted, committed: sums over whole rounds.
        settings: last in force.
        settings_changes: how often other settings came into force while it ran.
    """

    pieces: Pieces
    tokens: dict[str, Any] = field(
        default_factory=lambda: {
            "position": _integers(),
            "token_id": _integers(),
            "text": [],
            "kind": [],
            "round": [],
            "exit_depth": _integers(),
            "confidence": _floats(),
            "seconds": _floats(),
        }
    )
    drafts: dict[str, Any] = field(
        default_factory=lambda: {
            "round": _integers(),
            "position": _integers(),
            "token_id": _integers(),
            "text": [],
            "exit_depth": _integers(),
            "confidence": _floats(),
            "outcome": [],
        }
    )
    rounds: dict[str, Any] = field(
        default_factory=lambda: {
            "round": _integers(),
            "first_position": _integers(),
            "drafted": _integers(),
            "accepted": _integers(),
            "committed": _integers(),
            "stop_reason": [],
            "ended_with": [],
            "seconds": _floats(),
        }
    )
    checks: dict[str, Any] = field(default_factory=lambda: {"position": _integers(), "threshold": _floats()})
    checks_at: dict[int, list[ev.ExitCheck]] = field(default_factory=dict)
    started: ev.DecodeStarted | None = None
    finish_reason: str | None = None
    refusal: str | None = None
    sequence: list[int] = field(default_factory=list)
    pending: list[PendingDraft] = field(default_factory=list)
    thrown_away: list[PendingDraft] = field(default_factory=list)
    layer_passes: int = 0
    committed_in_rounds: int = 0
    drafted: int = 0
    accepted: int = 0
    draft_depths: int = 0
    settings: Settings | None = None
    settings_changes: int = 0
    events_read: int = 0
    _texts: dict[tuple[int, int], str] = field(default_factory=dict)

    def read(self, events: Sequence[ev.Event]) -> None:
        """Take in those of `events` (all events of the decode so far) that have not been read yet."""
        for index in range(self.events_read, len(events)):
            self._add(events[index])
            self.events_read = index + 1

    def _add(self, event: ev.Event) -> None:
        match event:
            case ev.ExitCheck():
                self._checked(event)
            case ev.Committed():
                self._committed(event)
            case ev.Verified():
                self._verified(event)
            case ev.DraftingStopped():
                self._drafting_stopped(event)
            case ev.DecodeStarted():
                self.started = event
                self.sequence.extend(event.prompt_ids)
            case ev.SettingsRefused():
                self.refusal = event.message
            case ev.SettingsChanged():
                self.refusal = None
                self.settings = event.settings
                self.settings_changes += event.version > 0
            case ev.DecodeFinished():
                self.finish_reason = event.reason

    def _checked(self, event: ev.ExitCheck) -> None:
        self.checks["position"].append(event.position)
        self.checks["threshold"].append(event.threshold)
        self.checks_at.setdefault(event.position, []).append(event)
        if event.exited:
            if not self.pending:
                self.thrown_away = []
            before = [*self.sequence[-_CONTEXT:], *(draft.token_id for draft in self.pending)]
            place = (event.position + 1, event.token_id)
            text = self._texts.get(place) or self.pieces.piece(before, event.token_id)
            self._texts[place] = text
            self.pending.append(PendingDraft(event.position + 1, event.token_id, text, event.layer, event.confidence))

    def _drafting_stopped(self, event: ev.DraftingStopped) -> None:
        if len(self.pending) != len(event.draft_ids):  # a decode that does not tell its exit checks
            before = list(self.sequence[-_CONTEXT:])
            self.pending = []
            for token_id, depth, confidence in zip(event.draft_ids, event.exit_depths, event.confidences, strict=True):
                text = self.pieces.piece(before, token_id)
                position = len(self.sequence) + len(self.pending)
                self.pending.append(PendingDraft(position, token_id, text, depth, confidence))
                before.append(token_id)

    def _verified(self, event: ev.Verified) -> None:
        for index, draft in enumerate(self.pending):
            draft.outcome = (
                "accepted" if index < event.accepted else "rejected" if index == event.accepted else "dropped"
            )
            for name, value in (
                ("round", event.round),
                ("position", draft.position),
                ("token_id", draft.token_id),
                ("text", draft.text),
                ("exit_depth", draft.exit_depth),
                ("confidence", draft.confidence),
                ("outcome", draft.outcome),
            ):
                self.drafts[name].append(value)
            self.draft_depths += draft.exit_depth
        self.thrown_away = self.pending[event.accepted :]
        self.pending = []
        ended_with = (
            "correction" if event.correction is not None else "bonus" if event.bonus is not None else "accepted"
        )
        committed = event.accepted + (ended_with != "accepted")
        for name, value in (
            ("round", event.round),
            ("first_position", event.first_position),
            ("drafted", len(event.draft_ids)),
            ("accepted", event.accepted),
            ("committed", committed),
            ("stop_reason", event.stop_reason),
            ("ended_with", ended_with),
            ("seconds", event.seconds),
        ):
            self.rounds[name].append(value)
        self.drafted += len(event.draft_ids)
        self.accepted += event.accepted
        self.committed_in_rounds += committed
        self.layer_passes += event.draft_layer_passes + event.verification_layer_passes

    def know(self, texts: Mapping[tuple[int, int], str]) -> None:
        """Texts by (position, token id), where they are known without a tokenizer."""
        self._texts.update(texts)

    def text_of(self, position: int, token_id: int) -> str:
        """What `token_id` adds, or would add, at `position`."""
        known = self._texts.get((position, token_id))
        if known is None:
            before = self.sequence[max(0, position - _CONTEXT) : position]
            known = self._texts[position, token_id] = self.pieces.piece(before, token_id)
        return known

    def _committed(self, event: ev.Committed) -> None:
        for name, value in (
            ("position", event.position),
            ("token_id", event.token_id),
            ("text", self.text_of(event.position, event.token_id)),
            ("kind", event.kind),
            ("round", event.round),
            ("exit_depth", event.exit_depth),
            ("confidence", float("nan") if event.confidence is None else event.confidence),
            ("seconds", event.seconds),
        ):
            self.tokens[name].append(value)
        self.sequence.append(event.token_id)

    @property
    def new_tokens(self) -> int:
        return len(self.tokens["position"])

    @property
    def token_ids(self) -> list[int]:
        """The new tokens."""
        return list(self.tokens["token_id"])

    @property
    def seconds_per_token(self) -> float | None:
        """Decoding time, the prefill and the first token left out; as in `Trace.summary`."""
        seconds = self.tokens["seconds"]
        return (seconds[-1] - seconds[0]) / (len(seconds) - 1) if len(seconds) > 1 else None

    @property
    def acceptance_rate(self) -> float | None:
        return self.accepted / self.drafted if self.drafted else None

    @property
    def tokens_per_round(self) -> float | None:
        rounds = len(self.rounds["round"])
        return self.committed_in_rounds / rounds if rounds else None

    @property
    def mean_exit_depth(self) -> float | None:
        """Layers, over drafted tokens."""
        return self.draft_depths / self.drafted if self.drafted else None

    @property
    def layer_passes_per_token(self) -> float | None:
        return self.layer_passes / self.committed_in_rounds if self.committed_in_rounds else None
