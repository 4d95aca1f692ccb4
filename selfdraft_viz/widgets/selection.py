"""The selected token: its exits as they were checked, and, for the asking, what every exit would have said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as ipw

from selfdraft_viz.events import ExitCheck, TokenGuess
from selfdraft_viz.plots.exits import (
    HISTOGRAM,
    SCHEDULE,
    TOKEN,
    blank_exits,
    histogram_data,
    histogram_range,
    schedule_data,
    schedule_range,
    token_data,
)
from selfdraft_viz.plots.text import visible
from selfdraft_viz.settings import Settings
from selfdraft_viz.widgets.live import LiveTables
from selfdraft_viz.widgets.look import Look
from selfdraft_viz.widgets.plot_view import PlotView
from selfdraft_viz.widgets.text_table import TextTable

NOTHING_SELECTED = "Click a token to see its exits"


class ExitsView(PlotView):
    """The schedule, where tokens came from, and the confidences of the selected token."""

    def __init__(self, exit_layers: Sequence[int], num_layers: int) -> None:
        self._exit_layers, self._num_layers = tuple(exit_layers), num_layers
        super().__init__(
            blank_exits(num_layers),
            description="Schedule, histogram of exit depths, and the selected token's confidence by exit, over layers",
        )

    def set_model(self, exit_layers: Sequence[int], num_layers: int) -> None:
        """Empty, for a model with these layers."""
        self._exit_layers, self._num_layers = tuple(exit_layers), num_layers
        self.set_figure(blank_exits(num_layers))

    def show_settings(self, settings: Settings) -> None:
        self.update(
            schedule_data(settings, self._exit_layers, self._num_layers),
            {"yaxis.range": schedule_range(settings, self._exit_layers, self._num_layers)},
            SCHEDULE.start,
        )

    def show_depths(self, tables: LiveTables) -> None:
        data = histogram_data(tables.tokens, tables.drafts, self._num_layers)
        self.update(data, {"yaxis2.range": histogram_range(data)}, HISTOGRAM.start)

    def show_token(self, checks: Sequence[ExitCheck]) -> None:
        self.update(token_data(checks), None, TOKEN.start)


class TokenPanel:
    """The selected token in words.

    Args:
        asked: called when somebody wants to see every exit.

    Attributes:
        box: the widget.
    """

    def __init__(self, asked: Callable[[], None]) -> None:
        self.table = TextTable(caption=NOTHING_SELECTED, columns=["exit", "conf.", "T", "likeliest tokens"])
        self.button = ipw.Button(
            description="look at every exit", disabled=True, layout=ipw.Layout(width="auto", height="30px"),
            tooltip="Compute, now, what every exit and the last layer say here",
        )  # fmt: skip
        self.button.on_click(lambda _: asked())
        self.box = ipw.VBox([self.table, self.button], layout=ipw.Layout(overflow="visible"))
        self.box.add_class("sv-narrow")

    def clear(self) -> None:
        with self.table.hold_sync():
            self.table.caption, self.table.rows, self.table.note = NOTHING_SELECTED, [], ""
        self.button.disabled = True

    def show(
        self,
        caption: str,
        checks: Sequence[ExitCheck],
        looks: Sequence[Look],
        num_layers: int,
        text_of: Callable[[int], str],
    ) -> None:
        """Rows for the exits that were checked, and for those only looked at afterwards, marked so.

        Args:
            text_of: the text of a token id at this place.
        """
        checked = {check.layer: check for check in checks}
        seen = {item.layer: item for item in looks}
        rows: list[list[str]] = []
        for layer in sorted({*checked, *seen}):
            check, item = checked.get(layer), seen.get(layer)
            guesses = item.top_tokens if item else check.top_tokens if check else ()
            tokens = ", ".join(_guess(guess, text_of) for guess in guesses)
            if check is not None:
                verdict = "exits" if check.exited else "goes on"
                tokens = tokens or f"{_quoted(text_of(check.token_id))}"
                rows.append([f"{layer} {verdict}", f"{check.confidence:.3f}", f"{check.exit_temperature:.3g}", tokens])
            elif item is not None:
                name = f"{layer} last" if layer == num_layers else f"{layer} *"
                temperature = "" if item.exit_temperature is None else f"{item.exit_temperature:.3g}"
                rows.append([name, f"{item.confidence:.3f}", temperature, tokens])
        only_looked_at = any(layer not in checked for layer in seen if layer != num_layers)
        with self.table.hold_sync():
            self.table.caption, self.table.rows = caption, rows
            self.table.note = "* not checked while decoding: computed now" if only_looked_at else ""
        self.button.disabled = bool(looks)


def described(label: str, looks: Sequence[Look], checks: Sequence[ExitCheck], text_of: Callable[[int], str]) -> str:
    """What a token says of itself on hover: a line on itself, one for each exit that was checked."""
    lines = [label]
    seen: dict[int, Any] = {item.layer: item for item in looks}
    for check in checks:
        item = seen.get(check.layer)
        guesses = item.top_tokens if item else check.top_tokens
        tokens = ", ".join(_guess(guess, text_of) for guess in guesses)
        lines.append(
            f"exit {check.layer}: confidence {check.confidence:.3f} at T = {check.exit_temperature:.3g}, "
            f"threshold {check.threshold:.3g}{': ' if tokens else ''}{tokens}"
        )
    return "\n".join(lines)


def _guess(guess: TokenGuess, text_of: Callable[[int], str]) -> str:
    return f"{_quoted(text_of(guess.token_id))} {guess.probability:.2f}"


def _quoted(text: str) -> str:
    return f"‘{visible(text)}’".replace("\n", "").replace("\t", "")
