"""What a decode says while it runs. No torch here.

Decoding is a generator of these events; the trace, the explorer, the command line and the tests all read the same
stream. Positions count from 0 over the whole sequence (prompt included), layers from 1. *Row i* is the computation at
position i; its output predicts the token at position i + 1. `seconds` is decoding time since the start, the time that
the consumer of the stream holds the generator left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from selfdraft_viz.settings import Sampling, Settings

Phase: TypeAlias = Literal["prefill", "draft", "verification", "plain"]
Kind: TypeAlias = Literal["prompt", "first", "accepted", "correction", "bonus", "plain"]
StopReason: TypeAlias = Literal["hard token", "width", "length", "end of sequence", "policy"]
FinishReason: TypeAlias = Literal["length", "end of sequence"]


@dataclass(frozen=True, slots=True)
class DecodeStarted:
    """The first event: what is decoded, and on what."""

    method: Literal["self-draft", "plain"]
    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    num_layers: int
    exit_layers: tuple[int, ...]
    sampling: Sampling | None


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    """Settings that hold from the next decision on; version 0 are those that the decode started with."""

    version: int
    settings: Settings


@dataclass(frozen=True, slots=True)
class SettingsRefused:
    """Settings that arrived while decoding but do not fit the model; the last valid ones stay."""

    message: str


@dataclass(frozen=True, slots=True)
class LayersRan:
    """Consecutive layers ran, each once, over the same rows: `last_layer - first_layer + 1` layer passes.

    Rows are positions `first_position` .. `stop_position - 1`. In phase "draft" the newest of them is the one being
    drafted from and the `catch_up_rows` before it are earlier positions carried up with it in the same pass.
    """

    round: int | None
    phase: Phase
    first_layer: int
    last_layer: int
    first_position: int
    stop_position: int
    catch_up_rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class TokenGuess:
    """One of the top tokens of an exit check; the probability is the un-annealed one."""

    token_id: int
    probability: float


@dataclass(frozen=True, slots=True)
class ExitCheck:
    """One decision: does the row at `position` exit after `layer` layers?

    It does when `confidence` (max softmax of z / exit_temperature) >= `threshold`, unless a policy decides otherwise;
    then `token_id` is drafted for `position + 1`. `unannealed_confidence` is max softmax(z), or None where less detail
    was asked for.
    """

    round: int
    position: int
    layer: int
    token_id: int
    confidence: float
    unannealed_confidence: float | None
    exit_temperature: float
    threshold: float
    exited: bool
    settings_version: int
    top_tokens: tuple[TokenGuess, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class DraftingStopped:
    """A round has drafted what it will; verification comes next."""

    round: int
    reason: StopReason
    draft_ids: tuple[int, ...]
    exit_depths: tuple[int, ...]
    confidences: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Verified:
    """The verdict on a round. `true_ids[j]` is the model's own token at `first_position + j`.

    The first `accepted` drafts stand. At the first mismatch `correction` is committed instead and the drafts after it
    are dropped; `bonus` is the output of a hard row after drafts that all stood. Counts are of this whole round.
    """

    round: int
    first_position: int
    draft_ids: tuple[int, ...]
    true_ids: tuple[int, ...]
    accepted: int
    correction: int | None
    bonus: int | None
    stop_reason: StopReason
    exit_checks: int
    draft_layer_passes: int
    verification_layer_passes: int
    draft_row_passes: int
    catch_up_row_passes: int
    verification_row_passes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Committed:
    """A token is final. `exit_depth` is the layers it came from: the exit layer of an accepted draft, L otherwise.

    `confidence` is that of the exit an accepted draft left at, None for other kinds.
    """

    position: int
    token_id: int
    kind: Kind
    round: int | None
    exit_depth: int
    confidence: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class DecodeFinished:
    """The last event of a decode that was not stopped from outside."""

    reason: FinishReason
    new_tokens: int
    seconds: float


Event: TypeAlias = (
    DecodeStarted
    | SettingsChanged
    | SettingsRefused
    | LayersRan
    | ExitCheck
    | DraftingStopped
    | Verified
    | Committed
    | DecodeFinished
)
