"""A decode step by step on the staircase: one slider through what was run, checked, verified and committed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as go

from selfdraft_viz import events as ev
from selfdraft_viz.plots.calibration import slider
from selfdraft_viz.plots.replay import events_of
from selfdraft_viz.plots.staircase import StaircaseGrid, blank_staircase, staircase_data
from selfdraft_viz.plots.style import heading
from selfdraft_viz.plots.text import hover_text

if TYPE_CHECKING:
    from selfdraft_viz.trace import Trace

_WIDEST = 24  # positions


def staircase_steps(trace: Trace, title: str = "") -> go.Figure:
    """A short decode that a reader can step through; it works without a kernel.

    Args:
        trace: of at most two dozen tokens, its prompt included; of self-draft decoding with `detail="full"`, or of
            ordinary decoding.
        title: of the figure.
    """
    beyond = len(trace.drafts) > 0 and trace.drafts["position"].max() > len(trace.tokens) - 1
    count = min(_WIDEST, len(trace.tokens) + int(beyond))
    grid = StaircaseGrid(trace.num_layers, len(trace.tokens) + len(trace.drafts) + 1)
    captions = _Captions(trace)
    frames: list[go.Frame] = []
    for event in events_of(trace):
        grid.apply(event)
        said = captions.caption(event)
        if said is None:
            continue
        frames.append(
            go.Frame(
                name=str(len(frames) + 1),
                data=[_trace(properties, index) for index, properties in enumerate(staircase_data(grid, 0, count))],
                traces=list(range(7)),
                layout={"annotations": [_note(said)], "xaxis": {"ticktext": captions.labels(count)}},
            )
        )
    figure = blank_staircase(trace.num_layers)
    first = frames[0]
    for shown, data in zip(figure.data, first.data, strict=False):
        shown.update({name: value for name, value in data.to_plotly_json().items() if name != "type"})
    figure.frames = frames
    figure.update_layout(
        title=heading(title, y=0.98),
        annotations=first.layout.annotations,
        height=616,
        margin={"t": 140, "b": 186, "l": 58, "r": 16},
        legend={"y": 1.0},
        showlegend=len(trace.rounds) > 0,
        sliders=[slider([frame.name for frame in frames], 0, "step ", top=0.3)],
    )
    figure.update_xaxes(
        range=[-0.5, count - 0.5], tickmode="array", tickvals=list(range(count)), ticktext=first.layout.xaxis.ticktext,
        tickangle=-35,
    )  # fmt: skip
    return figure


class _Captions:
    """What each event is called, and what stands at each position after it."""

    def __init__(self, trace: Trace) -> None:
        tokens, checks = trace.tokens.to_dict("records"), trace.exit_checks.to_dict("records")
        self._texts = {int(row["position"]): str(row["text"]) for row in tokens if row["kind"] == "prompt"}
        self._guesses = {
            (int(row["round"]), int(row["position"]), int(row["layer"])): str(row["text"]) for row in checks
        }
        self._committed = {int(row["position"]): str(row["text"]) for row in tokens}

    def labels(self, count: int) -> list[str]:
        return [hover_text(_short(self._texts.get(position, ""))) for position in range(count)]

    def caption(self, event: ev.Event) -> str | None:
        """None where the event is no step of its own."""
        match event:
            case ev.LayersRan():
                return self._ran(event)
            case ev.ExitCheck():
                return self._checked(event)
            case ev.DraftingStopped():
                drafted = _plural(len(event.draft_ids), "draft")
                return f"Round {event.round + 1}: drafting stops ({event.reason}); {drafted}."
            case ev.Verified():
                return self._verified(event)
            case ev.Committed() if event.kind == "first":
                self._commit(event.position, event.position + 1)
                return f"Its last row gives the first new token, {self._quoted(event.position)}."
            case ev.Committed() if event.kind == "plain":
                self._commit(event.position, event.position + 1)
                return f"That row gives the next token, {self._quoted(event.position)}, and it is committed."
        return None

    def _ran(self, event: ev.LayersRan) -> str:
        layers = f"layers {event.first_layer} to {event.last_layer}"
        rows = event.stop_position - event.first_position
        if event.phase == "prefill":
            return f"The prompt, {_plural(rows, 'row')}, passes {layers} at once."
        newest = self._quoted(event.stop_position - 1)
        if event.phase == "plain":
            return f"The newest token, {newest}, goes through {layers}."
        if event.phase == "draft":
            carried = ""
            if event.catch_up_rows:
                are = "is" if event.catch_up_rows == 1 else "are"
                carried = f", and {_plural(event.catch_up_rows, 'row')} before it {are} carried up with it (catch-up)"
            return f"Round {(event.round or 0) + 1}: {layers} run for {newest}{carried}."
        verb = "goes through" if rows == 1 else "go together through"
        return f"Verification: {_plural(rows, 'pending row')} {verb} {layers}."

    def _checked(self, event: ev.ExitCheck) -> str:
        guess = self._guesses[event.round, event.position, event.layer]
        said = f"Exit {event.layer} says “{hover_text(guess)}”, confidence {event.confidence:.2f}"
        if event.exited:
            self._texts[event.position + 1] = f"{guess}?"
            return f"{said} ≥ {event.threshold:g}: it is drafted, and the next row begins."
        return f"{said} < {event.threshold:g}: not sure enough."

    def _verified(self, event: ev.Verified) -> str:
        kept = event.accepted + (event.correction is not None or event.bonus is not None)
        end = min(event.first_position + kept, len(self._committed))
        self._commit(event.first_position, end)
        drafted = len(event.draft_ids)
        said = f"{event.accepted} of {_plural(drafted, 'draft')} accepted" if drafted else "No drafts to judge"
        if event.correction is not None:
            said += f"; the first wrong one is corrected to {self._quoted(end - 1)}"
        elif event.bonus is not None:
            said += f"; the hard row's own output, {self._quoted(end - 1)}, is a bonus"
        return f"{said}. {_plural(end - event.first_position, 'token')} committed."

    def _commit(self, start: int, stop: int) -> None:
        self._texts = {position: text for position, text in self._texts.items() if position < start}
        self._texts |= {position: self._committed[position] for position in range(start, stop)}

    def _quoted(self, position: int) -> str:
        return f"“{hover_text(self._texts.get(position, '').removesuffix('?'))}”"


def _trace(properties: dict, index: int) -> go.Heatmap | go.Scatter:
    return go.Heatmap(**properties) if index == 0 else go.Scatter(**properties)


def _note(text: str) -> dict:
    return {
        "text": text, "x": 0, "y": 1.2, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom",
        "showarrow": False, "align": "left", "font": {"size": 14},
    }  # fmt: skip


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _short(text: str) -> str:
    text = text.strip(" ") or ("␣" if text else "")
    return text if len(text) <= 10 else text[:9] + "…"
