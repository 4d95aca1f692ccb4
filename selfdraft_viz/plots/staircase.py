"""The staircase: layers x positions, each cell coloured by the phase in which it was computed.

A column is a row of the computation (the token at that position on its way up), a cell one layer run for it.
`StaircaseGrid` reads events and knows what has been computed; the functions draw a window of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from selfdraft_viz import events as ev
from selfdraft_viz.plots.colours import INK, NEUTRAL, REJECTED
from selfdraft_viz.plots.replay import events_of
from selfdraft_viz.plots.style import axis, margins, plain_layout
from selfdraft_viz.plots.text import hover_text

if TYPE_CHECKING:
    from selfdraft_viz.trace import Trace

PHASES = ("not computed", "prefill", "draft", "catch-up", "verification", "dropped", "ordinary")
"""What a cell can be; the values of `StaircaseGrid.cells` are indices into this. The last is of ordinary decoding."""
PHASE_COLOURS = ("rgba(128,128,128,0.07)", "#9a9a9a", "#56b4e9", "#c77cb0", "#1f5fa8", "#e08b55", "#009e73")
_NOT_COMPUTED, _PREFILL, _DRAFT, _CATCH_UP, _VERIFICATION, _DROPPED, _ORDINARY = range(7)
_OTHER_PHASES = {"prefill": _PREFILL, "verification": _VERIFICATION, "plain": _ORDINARY}

MARKS = ("went on", "exit", "accepted", "rejected", "dropped")
"""What an exit check can come to: not confident enough; drafted, not verified yet; and the three verdicts."""
_LOOKS: dict[str, dict[str, Any]] = {
    "went on": {"symbol": "circle-open", "size": 6, "color": "#ffffff", "line": {"width": 1.5, "color": "#ffffff"}},
    "exit": {"symbol": "circle", "size": 10, "color": "#ffffff", "line": {"width": 1.5, "color": "#222222"}},
    "accepted": {"symbol": "star", "size": 12, "color": "#ffffff", "line": {"width": 1.2, "color": "#222222"}},
    "rejected": {"symbol": "x", "size": 10, "color": REJECTED, "line": {"width": 1.2, "color": "#ffffff"}},
    "dropped": {"symbol": "circle-x", "size": 10, "color": "#ffffff", "line": {"width": 1.5, "color": "#222222"}},
}
HEIGHT = 450
WINDOW = 44
"""Positions shown at once: few enough to read their tokens."""


class StaircaseGrid:
    """What has been computed, as the events tell.

    Args:
        num_layers: L.
        capacity: positions there can be.

    Attributes:
        cells: (capacity x num_layers) uint8, indices into `PHASES`.
        marks: `{(row, layer): one of MARKS}`, the exit checks on rows that still stand.
        newest: the newest row anything was computed for; -1 before.
        round: the number of the round that runs, or ran last; None before the first.
    """

    def __init__(self, num_layers: int, capacity: int) -> None:
        self.cells = np.zeros((capacity, num_layers), dtype=np.uint8)
        self.marks: dict[tuple[int, int], str] = {}
        self.newest = -1
        self.round: int | None = None
        self._exits: list[tuple[int, int]] = []  # of the running round

    def apply(self, event: ev.Event) -> None:
        """Take in the next event."""
        match event:
            case ev.LayersRan():
                self._ran(event)
            case ev.ExitCheck():
                place = (event.position, event.layer)
                self.marks[place] = "exit" if event.exited else "went on"
                if event.exited:
                    self._exits.append(place)
            case ev.Verified():
                self._verified(event)

    def _ran(self, event: ev.LayersRan) -> None:
        start, stop = event.first_position, event.stop_position
        if event.round != self.round:
            self.round, self._exits = event.round, []
            self._forget(start)
        layers = slice(event.first_layer - 1, event.last_layer)
        if event.phase == "draft":
            self.cells[start : start + event.catch_up_rows, layers] = _CATCH_UP
            self.cells[start + event.catch_up_rows : stop, layers] = _DRAFT
        else:
            self.cells[start:stop, layers] = _OTHER_PHASES[event.phase]
        self.newest = max(self.newest, stop - 1)

    def _forget(self, start: int) -> None:
        """Rows from `start` on are computed anew."""
        self.cells[start:] = _NOT_COMPUTED
        self.marks = {place: mark for place, mark in self.marks.items() if place[0] < start}
        self.newest = start - 1

    def _verified(self, event: ev.Verified) -> None:
        for index, place in enumerate(self._exits):
            verdict = "accepted" if index < event.accepted else "rejected" if index == event.accepted else "dropped"
            self.marks[place] = verdict
        if event.accepted < len(event.draft_ids):
            dropped = self.cells[event.first_position + event.accepted :]  # rows that began with a wrong draft
            dropped[dropped > _NOT_COMPUTED] = _DROPPED

    def depths(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,): how many layers each row has been through."""
        return (self.cells[start:stop] > _NOT_COMPUTED).sum(axis=1)


def blank_staircase(num_layers: int) -> go.Figure:
    """The view before anything is computed."""
    shares = np.repeat(np.arange(len(PHASES) + 1) / len(PHASES), 2)[1:-1]
    scale = [(float(share), PHASE_COLOURS[index // 2]) for index, share in enumerate(shares)]
    cells = go.Heatmap(
        colorscale=scale,
        zmin=-0.5,
        zmax=len(PHASES) - 0.5,
        showscale=False,
        xgap=1.5,
        ygap=1.5 if num_layers <= 32 else 0.5,
        hovertemplate="position %{x}, layer %{y}<extra></extra>",
    )
    marks = [
        go.Scatter(
            name=name,
            mode="markers",
            marker=_LOOKS[name],
            hovertemplate=f"position %{{x}}, exit after %{{y}} layers: {name}<extra></extra>",
            showlegend=False,
        )
        for name in MARKS
    ]
    edge = go.Scatter(
        name="front",
        mode="lines",
        line={"color": INK, "width": 3, "shape": "hvh"},
        hoverinfo="skip",
    )
    legend = [
        go.Scatter(
            name=phase,
            x=[None],
            y=[None],
            mode="markers",
            marker={"symbol": "square", "size": 12, "color": colour},
        )
        for phase, colour in zip(PHASES[1:_ORDINARY], PHASE_COLOURS[1:_ORDINARY], strict=True)
    ]
    for name, symbol in (("exit, accepted", "star"), ("exit, rejected", "x"), ("no exit", "circle-open")):
        look = {"symbol": symbol, "size": 10, "color": REJECTED if symbol == "x" else NEUTRAL}
        legend.append(go.Scatter(name=name, x=[None], y=[None], mode="markers", marker=look))
    figure = go.Figure(
        [cells, *marks, edge, *legend],
        plain_layout(
            height=HEIGHT,
            margin=margins(t=74, b=84, l=58, r=10),
            xaxis=axis(None, showgrid=False, range=[-0.5, WINDOW - 0.5], tickangle=-55),
            yaxis=axis("layers", showgrid=False, range=[0.4, num_layers + 0.9], tickvals=_layer_ticks(num_layers)),
            legend={
                "orientation": "h", "x": 1, "xanchor": "right", "y": 1.01, "yanchor": "bottom", "font": {"size": 13},
                "itemsizing": "constant", "itemclick": False, "itemdoubleclick": False,
            },
        ),
    )  # fmt: skip
    figure.add_annotation(
        text="<b>Staircase</b>  which layer ran for which token, and when", x=0, y=1.158, xref="paper", yref="paper",
        xanchor="left", yanchor="bottom", showarrow=False, font={"size": 14},  # above two rows of the legend
    )  # fmt: skip
    return figure


def staircase_data(grid: StaircaseGrid, start: int, stop: int) -> list[dict[str, Any]]:
    """Properties of the first traces of `blank_staircase`, for positions `start` .. `stop - 1`."""
    stop = min(stop, len(grid.cells))
    count, num_layers = stop - start, grid.cells.shape[1]
    cells = {
        "x": np.repeat(np.arange(start, stop, dtype="int32"), num_layers),
        "y": np.tile(np.arange(1, num_layers + 1, dtype="int16"), count),
        "z": grid.cells[start:stop].ravel(),
    }
    places: dict[str, list[tuple[int, int]]] = {name: [] for name in MARKS}
    for place, mark in grid.marks.items():
        if start <= place[0] < stop:
            places[mark].append(place)
    marks: list[dict[str, Any]] = []
    for name in MARKS:
        table = np.array(sorted(places[name]), dtype="int32").reshape(-1, 2)
        marks.append({"x": table[:, 0].copy(), "y": table[:, 1].astype("int16")})
    last = min(stop, grid.newest + 1)
    front = np.arange(start, max(last, start), dtype="int32")
    edge = {"x": front, "y": (grid.depths(start, max(last, start)) + 0.5).astype("float32")}
    return [cells, *marks, edge]


def staircase_window(newest: int, capacity: int, start: int = 0, width: int = WINDOW) -> int:
    """Where the window should start so that `newest` is in it. It moves by pages, so that it seldom does."""
    page = width // 2
    while newest >= start + width:
        start += page
    while newest < start:
        start -= page
    return max(0, min(start, max(0, capacity - width)))


def staircase_layout(labels: Sequence[str], start: int, width: int = WINDOW) -> dict[str, Any]:
    """Layout properties by path for a window whose positions carry the texts `labels`."""
    ticktext = [hover_text(_shortened(label)) for label in labels]
    return {
        "xaxis.range": [start - 0.5, start + width - 0.5],
        "xaxis.tickmode": "array",
        "xaxis.tickvals": list(range(start, start + len(labels))),
        "xaxis.ticktext": ticktext,
    }


def staircase(trace: Trace, round: int | None = None) -> go.Figure:
    """The staircase as it stood at the end of a round, its tokens below it.

    Args:
        trace: of self-draft decoding, with its layer passes.
        round: None = the last.
    """
    grid = StaircaseGrid(trace.num_layers, len(trace.tokens) + len(trace.drafts) + 1)
    for event in events_of(trace):
        if round is not None and (getattr(event, "round", None) or 0) > round:
            break
        grid.apply(event)
    start = staircase_window(grid.newest, len(grid.cells))
    texts = list(trace.tokens["text"])[start : min(start + WINDOW, grid.newest + 2)]
    figure = blank_staircase(trace.num_layers)
    for shown, properties in zip(figure.data, staircase_data(grid, start, start + WINDOW), strict=False):
        shown.update(properties)
    figure.plotly_relayout(staircase_layout(texts, start))
    return figure


def staircase_player(trace: Trace, most_rounds: int = 200) -> go.Figure:
    """The staircase with a slider over the rounds, two steps each: drafted, and verified. Needs no kernel.

    Args:
        trace: of self-draft decoding, with its layer passes.
        most_rounds: of a longer decode only these first rounds are shown, and the title says so.
    """
    grid = StaircaseGrid(trace.num_layers, len(trace.tokens) + len(trace.drafts) + 1)
    figure = blank_staircase(trace.num_layers)
    texts = dict(zip(trace.tokens["position"], trace.tokens["text"], strict=True))
    frames: list[go.Frame] = []
    start = 0

    def add(name: str, newest: int) -> None:
        nonlocal start
        start = staircase_window(newest, len(grid.cells), start)
        shown = [texts.get(place, "") for place in range(start, min(start + WINDOW, newest + 1))]
        data = staircase_data(grid, start, start + WINDOW)
        frames.append(
            go.Frame(
                name=name,
                data=[go.Heatmap(data[0]), *(go.Scatter(properties) for properties in data[1:])],
                traces=list(range(len(data))),
                layout=_nested(staircase_layout(shown, start)),
            )
        )

    rounds = 0
    for event in events_of(trace):
        grid.apply(event)
        if isinstance(event, ev.DraftingStopped):
            add(f"round {event.round}: {len(event.draft_ids)} drafted", grid.newest + 1)
        elif isinstance(event, ev.Verified):
            last = event.first_position + event.accepted + (event.correction is not None or event.bonus is not None) - 1
            add(f"round {event.round}: {event.accepted} accepted", last)
            rounds += 1
            if rounds == most_rounds:
                break
    figure.frames = frames
    if frames:
        for shown, properties in zip(figure.data, frames[-1].data, strict=False):
            shown.update(properties.to_plotly_json())
        figure.update_layout(frames[-1].layout)
    still = {"frame": {"duration": 0, "redraw": True}, "mode": "immediate", "transition": {"duration": 0}}
    figure.update_layout(
        height=HEIGHT + 90,
        margin_b=170,
        sliders=[
            {
                "active": len(frames) - 1,
                "y": -0.28,
                "x": 0.1,
                "len": 0.9,
                "currentvalue": {"prefix": "", "xanchor": "left", "font": {"size": 15, "color": "#333333"}},
                "steps": [
                    {"label": frame.name, "method": "animate", "args": [[frame.name], still]} for frame in frames
                ],
                "ticklen": 0,
                "minorticklen": 0,
                "font": {"color": "rgba(0,0,0,0)"},
            }
        ],
        updatemenus=[
            {
                "type": "buttons", "direction": "left", "x": 0.0, "y": -0.36, "xanchor": "left", "showactive": False,
                "buttons": [
                    {"label": "▶", "method": "animate",
                     "args": [None, {**still, "frame": {"duration": 600, "redraw": True}, "fromcurrent": False}]},
                    {"label": "■", "method": "animate", "args": [[None], still]},
                ],
            }
        ],
    )  # fmt: skip
    if rounds == most_rounds < len(trace.rounds):
        figure.layout.annotations[0].text += f" (the first {most_rounds} of {len(trace.rounds)} rounds)"
    return figure


def _nested(paths: dict[str, Any]) -> dict[str, Any]:
    """`{"xaxis.range": ...}` as `{"xaxis": {"range": ...}}`."""
    nested: dict[str, Any] = {}
    for path, value in paths.items():
        part, name = path.split(".")
        nested.setdefault(part, {})[name] = value
    return nested


def _layer_ticks(num_layers: int) -> list[int]:
    step = max(1, round(num_layers / 8))
    return [*range(step, num_layers - step // 2, step), num_layers]


def _shortened(text: str, length: int = 9) -> str:
    text = text.strip(" ") or "␣"
    return text if len(text) <= length else text[: length - 1] + "…"
