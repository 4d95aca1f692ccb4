"""The events of a decode again, from the tables that it left: to play a saved trace back, without its model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from selfdraft_viz import events as ev
from selfdraft_viz.settings import Sampling

if TYPE_CHECKING:
    from selfdraft_viz.trace import Trace


def events_of(trace: Trace) -> list[ev.Event]:
    """What the decode said, in order, as far as its trace tells.

    A trace does not keep what the model would have said after the first mismatch: `Verified.true_ids` ends there.
    Settings that were refused are left out.
    """
    return list(_events(trace))


def _events(trace: Trace) -> Iterator[ev.Event]:
    sampling = Sampling(**trace.sampling) if trace.sampling else None
    method: Any = trace.method
    yield ev.DecodeStarted(
        method, tuple(trace.prompt_ids), trace.max_new_tokens, trace.num_layers, trace.exit_layers, sampling
    )
    versions = enumerate(trace.settings_history)
    latest = -1
    if trace.settings_history:
        latest, settings = next(versions)
        yield ev.SettingsChanged(latest, settings)
    rounds = {int(row["round"]): row for row in trace.rounds.to_dict("records")}
    drafts = _by_round(trace.drafts)
    checks = _by_round(trace.exit_checks)
    passes = _by_round(trace.layer_passes)
    commits = _by_round(trace.tokens[trace.tokens["kind"] != "prompt"])
    outside: list[Any] = [*_runs(passes.get(None, []), None), *map(_committed, commits.get(None, []))]
    yield from sorted(outside, key=lambda event: event.seconds)
    for number in sorted({*rounds, *(key for key in (*checks, *passes) if key is not None)}):
        mine = passes.get(number, [])
        drafting: list[Any] = [
            *_runs([row for row in mine if row["phase"] == "draft"], number),
            *map(_check, checks.get(number, [])),
        ]
        for event in sorted(drafting, key=lambda event: (event.seconds, isinstance(event, ev.ExitCheck))):
            while isinstance(event, ev.ExitCheck) and event.settings_version > latest:
                latest, settings = next(versions)
                yield ev.SettingsChanged(latest, settings)
            yield event
        verifying = _runs([row for row in mine if row["phase"] == "verification"], number)
        if number not in rounds:  # the decode was stopped in this round
            yield from verifying
            continue
        row, guesses = rounds[number], drafts.get(number, [])
        yield ev.DraftingStopped(
            number,
            row["stop_reason"],
            tuple(int(guess["token_id"]) for guess in guesses),
            tuple(int(guess["exit_depth"]) for guess in guesses),
            tuple(float(guess["confidence"]) for guess in guesses),
        )
        yield from verifying
        done = commits.get(number, [])
        yield _verified(row, guesses, done)
        yield from map(_committed, done)
    if trace.finish_reason is not None:
        reason: Any = trace.finish_reason
        last = trace.tokens["seconds"].max()
        yield ev.DecodeFinished(reason, len(trace.token_ids), float(last))


def _by_round(table: pd.DataFrame) -> dict[int | None, list[dict[Any, Any]]]:
    """Rows by round, in their order; None for those outside the rounds."""
    rows: dict[int | None, list[dict[Any, Any]]] = {}
    for row in table.to_dict("records"):
        rows.setdefault(None if pd.isna(row["round"]) else int(row["round"]), []).append(row)
    return rows


def _runs(rows: list[dict[Any, Any]], number: int | None) -> list[ev.LayersRan]:
    """Consecutive layers over the same rows, as one event again."""
    runs: list[ev.LayersRan] = []
    for row in rows:
        layer, first, count = int(row["layer"]), int(row["first_position"]), int(row["rows"])
        last = runs[-1] if runs else None
        same = last and (last.first_position, last.stop_position, last.phase, last.seconds) == (
            first,
            first + count,
            row["phase"],
            row["seconds"],
        )
        start = layer
        if last and same and last.last_layer + 1 == layer:
            start = last.first_layer
            runs.pop()
        runs.append(
            ev.LayersRan(
                number, row["phase"], start, layer, first, first + count, int(row["catch_up_rows"]), row["seconds"]
            )
        )
    return runs


def _check(row: dict[Any, Any]) -> ev.ExitCheck:
    guesses = zip(row["top_token_ids"], row["top_probabilities"], strict=True)
    unannealed = row["unannealed_confidence"]
    return ev.ExitCheck(
        round=int(row["round"]),
        position=int(row["position"]),
        layer=int(row["layer"]),
        token_id=int(row["token_id"]),
        confidence=float(row["confidence"]),
        unannealed_confidence=None if pd.isna(unannealed) else float(unannealed),
        exit_temperature=float(row["exit_temperature"]),
        threshold=float(row["threshold"]),
        exited=bool(row["exited"]),
        settings_version=int(row["settings_version"]),
        top_tokens=tuple(ev.TokenGuess(int(token_id), float(probability)) for token_id, probability in guesses),
        seconds=float(row["seconds"]),
    )


def _verified(row: dict[Any, Any], guesses: list[dict[Any, Any]], done: list[dict[Any, Any]]) -> ev.Verified:
    true_ids = tuple(int(commit["token_id"]) for commit in done)
    last = true_ids[-1] if true_ids else None
    counts = {name: int(value) for name, value in row.items() if str(name).endswith("passes") or name == "exit_checks"}
    return ev.Verified(
        round=int(row["round"]),
        first_position=int(row["first_position"]),
        draft_ids=tuple(int(guess["token_id"]) for guess in guesses),
        true_ids=true_ids,
        accepted=int(row["accepted"]),
        correction=last if row["ended_with"] == "correction" else None,
        bonus=last if row["ended_with"] == "bonus" else None,
        stop_reason=row["stop_reason"],
        seconds=float(row["seconds"]),
        **counts,
    )


def _committed(row: dict[Any, Any]) -> ev.Committed:
    number, confidence = row["round"], row["confidence"]
    return ev.Committed(
        position=int(row["position"]),
        token_id=int(row["token_id"]),
        kind=row["kind"],
        round=None if pd.isna(number) else int(number),
        exit_depth=int(row["exit_depth"]),
        confidence=None if pd.isna(confidence) else float(confidence),
        seconds=float(row["seconds"]),
    )
