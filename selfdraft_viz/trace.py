"""What a decode leaves behind: tidy tables, a summary, and one Parquet file. No torch and no transformers here.

`TraceRecorder` reads the stream of events; `Trace` is what it has read so far. Every table is a pandas DataFrame; the
columns and their units are documented in `COLUMNS`.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from selfdraft_viz import events as ev
from selfdraft_viz.policies import POLICIES, UnsavedPolicy
from selfdraft_viz.saved import read_table, reading
from selfdraft_viz.schedules import KINDS, PerLayerTemperature
from selfdraft_viz.settings import Settings
from selfdraft_viz.text import CONTEXT, Pieces

_FORMAT_VERSION = 1
_METADATA = "selfdraft_viz"

COLUMNS: dict[str, dict[str, str]] = {
    "tokens": {
        "position": "place in the sequence, prompt included, from 0",
        "token_id": "vocabulary id",
        "text": "what the token adds to the text; a placeholder while a character is not whole",
        "kind": "prompt, first, accepted, correction, bonus; plain in ordinary decoding",
        "round": "the round that committed it; empty for prompt, first and plain tokens",
        "exit_depth": "layers its value came from: an accepted draft's exit layer, else all L; empty for the prompt",
        "confidence": "annealed confidence at that exit, 0..1; accepted drafts only",
        "seconds": "decoding time when it was committed; empty for the prompt",
    },
    "rounds": {
        "round": "number, from 0",
        "first_position": "position of the first token the round commits",
        "drafted": "tokens drafted",
        "accepted": "drafts that stood",
        "committed": "tokens committed: accepted, and a correction or bonus",
        "stop_reason": "why drafting stopped: hard token, width, length, end of sequence, policy",
        "ended_with": "correction, bonus, or accepted if the last committed token was a draft",
        "exit_checks": "exit checks made",
        "draft_layer_passes": "layers run while drafting, each once over however many rows",
        "verification_layer_passes": "layers run while verifying, each once over however many rows",
        "draft_row_passes": "rows x layers of the newest row while drafting",
        "catch_up_row_passes": "rows x layers of earlier rows carried up with it",
        "verification_row_passes": "rows x layers while verifying",
        "seconds": "decoding time at the verdict",
    },
    "drafts": {
        "round": "the round that drafted it",
        "position": "the position it was drafted for",
        "token_id": "vocabulary id",
        "text": "what the token would add to the text",
        "exit_depth": "the exit layer it left at, in layers",
        "confidence": "annealed confidence at that exit, 0..1",
        "outcome": "accepted; rejected (the first mismatch); dropped (after a mismatch)",
    },
    "exit_checks": {
        "round": "the round it belongs to",
        "position": "the row that was checked; it predicts position + 1",
        "layer": "the exit layer",
        "token_id": "the token it would draft",
        "text": "that token's text",
        "confidence": "annealed: max softmax(z / exit_temperature), 0..1",
        "unannealed_confidence": "max softmax(z), 0..1; empty where less detail was asked for",
        "exit_temperature": "T_l in force at this check",
        "threshold": "in force at this check; infinite = never exit",
        "exited": "confidence >= threshold, or as the policy decided: the token was drafted",
        "max_depth": "bound in force, layers; empty = none",
        "max_width": "bound in force, tokens; empty = none",
        "settings_version": "which of trace.settings_history was in force",
        "top_token_ids": "ids of the likeliest tokens, likeliest first; empty list where not asked for",
        "top_texts": "their texts",
        "top_probabilities": "their un-annealed probabilities",
        "seconds": "decoding time at the check",
    },
    "layer_passes": {
        "round": "the round it belongs to; empty for prefill and ordinary decoding",
        "phase": "prefill, draft, verification; plain in ordinary decoding",
        "layer": "1..L",
        "first_position": "the first row of the pass",
        "rows": "rows in the pass: positions first_position .. first_position + rows - 1",
        "catch_up_rows": "of these, rows (the first ones) carried up behind the newest while drafting",
        "seconds": "decoding time after the run of layers that this pass was part of",
    },
}
"""Tables, their columns and what is in them."""

_INTEGERS = {
    "position", "token_id", "round", "exit_depth", "first_position", "drafted", "accepted", "committed", "exit_checks",
    "draft_layer_passes", "verification_layer_passes", "draft_row_passes", "catch_up_row_passes",
    "verification_row_passes", "layer", "max_depth", "max_width", "settings_version", "rows", "catch_up_rows",
}  # fmt: skip
_FLOATS = {"confidence", "seconds", "unannealed_confidence", "exit_temperature", "threshold"}
_LISTS = {
    "top_token_ids": pa.list_(pa.int64()),
    "top_texts": pa.list_(pa.string()),
    "top_probabilities": pa.list_(pa.float64()),
}


@dataclasses.dataclass(frozen=True)
class Trace:
    """A decode, finished or not, as tables.

    Attributes:
        tokens, rounds, drafts, exit_checks, layer_passes: DataFrames; see `COLUMNS`.
        text: the new tokens as text.
        method: "self-draft" or "plain".
        num_layers: L.
        exit_layers: the model's exit layers.
        settings_history: the settings that were in force, in order; empty for ordinary decoding.
        refusals: messages of settings that arrived while decoding and were refused.
        finish_reason: "length", "end of sequence", or None if the decode was stopped, failed or still runs.
        max_new_tokens: what was asked for.
        sampling: the `Sampling` as plain data, or None for greedy.
        model: identity of the model: id, revision, family, heads, device, dtype.
        environment: versions of the libraries, and the hardware.
    """

    tokens: pd.DataFrame
    rounds: pd.DataFrame
    exit_checks: pd.DataFrame
    layer_passes: pd.DataFrame
    drafts: pd.DataFrame
    text: str
    method: str
    num_layers: int
    exit_layers: tuple[int, ...]
    settings_history: tuple[Settings, ...] = ()
    refusals: tuple[str, ...] = ()
    finish_reason: str | None = None
    max_new_tokens: int = 0
    sampling: dict[str, Any] | None = None
    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    environment: dict[str, Any] = dataclasses.field(default_factory=dict)

    @cached_property
    def token_ids(self) -> list[int]:
        """The new tokens."""
        return [int(token) for token in self.tokens.loc[self.tokens["kind"] != "prompt", "token_id"]]

    @cached_property
    def prompt_ids(self) -> list[int]:
        return [int(token) for token in self.tokens.loc[self.tokens["kind"] == "prompt", "token_id"]]

    @property
    def settings(self) -> Settings | None:
        """The settings last in force; None for ordinary decoding."""
        return self.settings_history[-1] if self.settings_history else None

    def summary(self) -> dict[str, Any]:
        """The decode in numbers; a value is None where nothing was there to measure.

        Per-token figures leave the prefill and the first token out, so that ordinary decoding has exactly
        L `layer_passes_per_token`. `acceptance_rate` = accepted / drafted; `tokens_per_round` counts committed tokens;
        `mean_exit_depth` is over drafted tokens, in layers; seconds are decoding time.
        """
        new_tokens = len(self.token_ids)
        decoded = new_tokens - 1
        times = self.tokens.loc[self.tokens["kind"] != "prompt", "seconds"]
        seconds = float(times.iloc[-1] - times.iloc[0]) if new_tokens else 0.0
        drafted, accepted = int(self.rounds["drafted"].sum()), int(self.rounds["accepted"].sum())
        committed = int(self.rounds["committed"].sum())
        if self.method == "plain":
            layer_passes = row_passes = decoded * self.num_layers
        else:
            decoded = committed  # of whole rounds
            layer_passes = int(self.rounds[["draft_layer_passes", "verification_layer_passes"]].to_numpy().sum())
            row_passes = int(self.rounds[[c for c in self.rounds.columns if c.endswith("row_passes")]].to_numpy().sum())
        per_token = seconds / max(1, new_tokens - 1)
        return {
            "method": self.method,
            "prompt_tokens": len(self.prompt_ids),
            "new_tokens": new_tokens,
            "finish_reason": self.finish_reason,
            "rounds": len(self.rounds),
            "drafted": drafted,
            "accepted": accepted,
            "acceptance_rate": accepted / drafted if drafted else None,
            "tokens_per_round": committed / len(self.rounds) if len(self.rounds) else None,
            "mean_exit_depth": float(self.drafts["exit_depth"].mean()) if len(self.drafts) else None,
            "layer_passes_per_token": layer_passes / decoded if decoded > 0 else None,
            "row_passes_per_token": row_passes / decoded if decoded > 0 else None,
            "exit_checks_per_token": int(self.rounds["exit_checks"].sum()) / decoded if decoded > 0 else None,
            "prefill_seconds": float(times.iloc[0]) if new_tokens else None,
            "seconds_per_token": per_token if new_tokens > 1 else None,
            "tokens_per_second": 1 / per_token if new_tokens > 1 and per_token > 0 else None,
        }

    def save(self, path: str | Path) -> Path:
        """Write everything into one Parquet file: the tables one under the other, told apart by the column `table`; the
        rest in the file's metadata. Returns the path.

        A schedule of one's own is saved as the temperatures it gave, a `PerLayerTemperature`; a policy of one's own as
        its description.
        """
        tables = [_to_arrow(name, getattr(self, name)) for name in COLUMNS]
        merged = pa.concat_tables(tables, promote_options="permissive")
        header = {
            "format_version": _FORMAT_VERSION,
            "text": self.text,
            "method": self.method,
            "num_layers": self.num_layers,
            "exit_layers": list(self.exit_layers),
            "settings_history": [self._savable(settings).to_dict() for settings in self.settings_history],
            "refusals": list(self.refusals),
            "finish_reason": self.finish_reason,
            "max_new_tokens": self.max_new_tokens,
            "sampling": self.sampling,
            "model": self.model,
            "environment": self.environment,
        }
        metadata = {**(merged.schema.metadata or {}), _METADATA.encode(): json.dumps(header).encode()}
        pq.write_table(merged.replace_schema_metadata(metadata), path, compression="zstd")
        return Path(path)

    def _savable(self, settings: Settings) -> Settings:
        if POLICIES.get(settings.policy.kind) is not type(settings.policy):
            settings = settings.replace(policy=UnsavedPolicy(repr(settings.policy)))
        if KINDS.get(settings.schedule.kind) is type(settings.schedule):
            return settings
        temperatures = settings.plan(self.exit_layers, self.num_layers).exit_temperatures
        return settings.replace(schedule=PerLayerTemperature(temperatures))

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read what `save` wrote, on any machine: no model and no torch needed.

        Raises:
            LoadError: the file is missing, damaged, or not a trace.
        """
        with reading(path, "trace", "trace.save()"):
            merged, header = read_table(path, "trace", _METADATA, _FORMAT_VERSION)
            tables: dict[str, Any] = {name: _from_arrow(name, merged) for name in COLUMNS}
            header["exit_layers"] = tuple(header["exit_layers"])
            header["refusals"] = tuple(header["refusals"])
            header["settings_history"] = tuple(Settings.from_dict(settings) for settings in header["settings_history"])
            return cls(**tables, **header)


class TraceRecorder:
    """Collects events into the columns of a `Trace`.

    Args:
        tokenizer: for the texts; None = token ids in angle brackets.
        model: identity of the model, kept in the trace.
        environment: kept in the trace; see `environment`.
    """

    def __init__(
        self,
        tokenizer: Any | None = None,
        model: dict[str, Any] | None = None,
        environment: dict[str, Any] | None = None,
    ) -> None:
        self.pieces = Pieces(tokenizer)
        self._model = model or {}
        self._environment = environment or {}
        self._started: ev.DecodeStarted | None = None
        self._finish_reason: str | None = None
        self._settings: list[Settings] = []
        self._refusals: list[str] = []
        self._committed: list[ev.Committed] = []
        self._verified: list[ev.Verified] = []
        self._stopped: list[ev.DraftingStopped] = []
        self._checks: list[ev.ExitCheck] = []
        self._passes: list[ev.LayersRan] = []

    def add(self, event: ev.Event) -> None:
        """Take in the next event. Cheap: an event is only kept."""
        match event:
            case ev.ExitCheck():
                self._checks.append(event)
            case ev.LayersRan():
                self._passes.append(event)
            case ev.Committed():
                self._committed.append(event)
            case ev.DraftingStopped():
                self._stopped.append(event)
            case ev.Verified():
                self._verified.append(event)
            case ev.SettingsChanged():
                self._settings.append(event.settings)
            case ev.SettingsRefused():
                self._refusals.append(event.message)
            case ev.DecodeStarted():
                self._started = event
            case ev.DecodeFinished():
                self._finish_reason = event.reason

    def record(self, events: Iterable[ev.Event]) -> Trace:
        """Read `events` to their end. If they fail or are interrupted, the exception carries what was recorded so far
        as its attribute `trace`."""
        try:
            for event in events:
                self.add(event)
        except BaseException as error:
            error.trace = self.trace()  # type: ignore[attr-defined]
            raise
        return self.trace()

    def trace(self) -> Trace:
        """The trace so far, after any event."""
        if self._started is None:
            raise ValueError("nothing has been decoded yet: add the events of a decode first, DecodeStarted among them")
        started = self._started
        sequence = [*started.prompt_ids, *(event.token_id for event in self._committed)]
        return Trace(
            tokens=self._tokens(started, sequence),
            rounds=self._rounds(),
            exit_checks=self._exit_checks(started, sequence),
            layer_passes=self._layer_passes(),
            drafts=self._drafts(started, sequence),
            text=self.pieces.continuation(started.prompt_ids, sequence[len(started.prompt_ids) :]),
            method=started.method,
            num_layers=started.num_layers,
            exit_layers=started.exit_layers,
            settings_history=tuple(self._settings),
            refusals=tuple(self._refusals),
            finish_reason=self._finish_reason,
            max_new_tokens=started.max_new_tokens,
            sampling=started.sampling.to_dict() if started.sampling else None,
            model=self._model,
            environment=self._environment,
        )

    def _tokens(self, started: ev.DecodeStarted, sequence: list[int]) -> pd.DataFrame:
        unset = (None,) * 4
        prompt = [(position, token_id, "prompt", *unset) for position, token_id in enumerate(started.prompt_ids)]
        new = [
            (event.position, event.token_id, event.kind, event.round, event.exit_depth, event.confidence, event.seconds)
            for event in self._committed
        ]
        names = ["position", "token_id", "kind", "round", "exit_depth", "confidence", "seconds"]
        table = pd.DataFrame([*prompt, *new], columns=names)
        table["text"] = [self.pieces.piece(sequence[:i], token_id) for i, token_id in enumerate(sequence)]
        return _tidy("tokens", table)

    def _rounds(self) -> pd.DataFrame:
        rows = []
        for event in self._verified:
            ended_with = "accepted"
            if event.correction is not None:
                ended_with = "correction"
            elif event.bonus is not None:
                ended_with = "bonus"
            rows.append(
                {
                    **{name: getattr(event, name) for name in COLUMNS["rounds"] if hasattr(event, name)},
                    "drafted": len(event.draft_ids),
                    "committed": event.accepted + (ended_with != "accepted"),
                    "ended_with": ended_with,
                }
            )
        return _tidy("rounds", pd.DataFrame(rows, columns=list(COLUMNS["rounds"])))

    def _drafts(self, started: ev.DecodeStarted, sequence: list[int]) -> pd.DataFrame:
        rows = []
        for stopped, verified in zip(self._stopped, self._verified, strict=False):
            first = verified.first_position
            for j, token_id in enumerate(stopped.draft_ids):
                outcome = "accepted" if j < verified.accepted else "rejected" if j == verified.accepted else "dropped"
                before = [*sequence[max(0, first - CONTEXT) : first], *stopped.draft_ids[:j]]
                rows.append(
                    (
                        stopped.round,
                        first + j,
                        token_id,
                        self.pieces.piece(before, token_id),
                        stopped.exit_depths[j],
                        stopped.confidences[j],
                        outcome,
                    )
                )
        return _tidy("drafts", pd.DataFrame(rows, columns=list(COLUMNS["drafts"])))

    def _exit_checks(self, started: ev.DecodeStarted, sequence: list[int]) -> pd.DataFrame:
        drafted = {event.round: event.draft_ids for event in self._stopped}
        first_rows: dict[int, int] = {}
        rows = []
        for event in self._checks:
            first_row = first_rows.setdefault(event.round, event.position)
            guesses = drafted.get(event.round, ())[: event.position - first_row]
            before = [*sequence[max(0, first_row - CONTEXT) : first_row + 1], *guesses]
            settings = self._settings[event.settings_version]
            rows.append(
                {
                    **{name: getattr(event, name) for name in COLUMNS["exit_checks"] if hasattr(event, name)},
                    "text": self.pieces.piece(before, event.token_id),
                    "max_depth": settings.max_depth,
                    "max_width": settings.max_width,
                    "top_token_ids": [guess.token_id for guess in event.top_tokens],
                    "top_texts": [self.pieces.piece(before, guess.token_id) for guess in event.top_tokens],
                    "top_probabilities": [guess.probability for guess in event.top_tokens],
                }
            )
        return _tidy("exit_checks", pd.DataFrame(rows, columns=list(COLUMNS["exit_checks"])))

    def _layer_passes(self) -> pd.DataFrame:
        rows = [
            (
                event.round,
                event.phase,
                layer,
                event.first_position,
                event.stop_position - event.first_position,
                event.catch_up_rows,
                event.seconds,
            )
            for event in self._passes
            for layer in range(event.first_layer, event.last_layer + 1)
        ]
        return _tidy("layer_passes", pd.DataFrame(rows, columns=list(COLUMNS["layer_passes"])))


def environment() -> dict[str, Any]:
    """Versions and hardware, as far as they can be known without torch; `Model` adds its own."""
    from selfdraft_viz import __version__

    return {
        "selfdraft_viz": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _tidy(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Columns in their documented order, with nullable dtypes that do not depend on what happens to be in them."""
    table = table[list(COLUMNS[name])].copy()
    for column in table.columns:
        if column in _INTEGERS:
            table[column] = table[column].astype("Int64")
        elif column in _FLOATS:
            table[column] = table[column].astype("float64")
        elif column == "exited":
            table[column] = table[column].astype("bool")
        else:
            table[column] = table[column].astype("object" if column in _LISTS else "str")
    return table


def _arrow_schema(names: Sequence[str]) -> pa.Schema:
    def kind(column: str) -> pa.DataType:
        if column in _INTEGERS:
            return pa.int64()
        if column in _FLOATS:
            return pa.float64()
        if column == "exited":
            return pa.bool_()
        return _LISTS.get(column, pa.string())

    return pa.schema([(column, kind(column)) for column in names])


def _to_arrow(name: str, table: pd.DataFrame) -> pa.Table:
    arrow = pa.Table.from_pandas(table, schema=_arrow_schema(list(COLUMNS[name])), preserve_index=False)
    arrow = arrow.replace_schema_metadata(None)
    return arrow.add_column(0, "table", pa.array([name] * len(table), pa.string()))


def _from_arrow(name: str, merged: pa.Table) -> pd.DataFrame:
    columns = list(COLUMNS[name])
    mask = pa.compute.equal(merged["table"], name)
    table = merged.filter(mask).select(columns).to_pandas(integer_object_nulls=True)
    for column in _LISTS:
        if column in table:
            table[column] = [list(value) for value in table[column]]
    return _tidy(name, table)
