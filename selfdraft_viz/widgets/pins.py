"""Runs that were pinned: rows of a table under the live run, and thin lines in its plots."""

from __future__ import annotations

from dataclasses import dataclass

from selfdraft_viz.plots.pinned import MOST_PINS, PinnedCurves, pinned_curves
from selfdraft_viz.plots.text import visible
from selfdraft_viz.schedules import ConstantTemperature, NoAnnealing, PerLayerTemperature, Schedule
from selfdraft_viz.settings import NEVER, Settings
from selfdraft_viz.widgets.session import Decode
from selfdraft_viz.widgets.text_table import TextTable

COLUMNS = [
    "run", "prompt", "settings", "tokens", "acceptance rate", "tokens per round", "mean exit depth",
    "layer passes per token", "tokens per second", "speedup", "equal",
]  # fmt: skip
LIVE = "this run"


@dataclass(frozen=True)
class Pin:
    """A run that was kept."""

    curves: PinnedCurves
    row: list[str]


class Pins:
    """At most `MOST_PINS` of them; the oldest goes when one more comes.

    Attributes:
        table: the widget.
    """

    def __init__(self) -> None:
        self._pins: list[Pin] = []
        self._live: list[str] = []
        self._count = 0
        self.table = TextTable(columns=COLUMNS)
        self.table.add_class("sv-pinned")
        self._show()

    def __len__(self) -> int:
        return len(self._pins)

    @property
    def names(self) -> list[str]:
        return [pin.curves.name for pin in self._pins]

    @property
    def curves(self) -> list[PinnedCurves]:
        return [pin.curves for pin in self._pins]

    def add(self, decode: Decode, settings: Settings | None, name: str | None = None) -> str:
        """Keep a run as it is at the moment. Returns its name."""
        self._count += 1
        name = name or f"pin {self._count}"
        tables = decode.tables
        curves = pinned_curves(name, tables.tokens, tables.rounds, len(decode.prompt_ids))
        self._pins = [*self._pins, Pin(curves, described(name, decode, settings))][-MOST_PINS:]
        self.show_live(decode, settings)
        return name

    def show_live(self, decode: Decode, settings: Settings | None) -> None:
        """The live run as the table's first row, where there is something to compare it with."""
        self._live = described(LIVE, decode, settings)
        self._show()

    def remove(self, name: str | None = None) -> None:
        """Let go of the run of that name; None = of all.

        Raises:
            ValueError: there is none of that name.
        """
        if name is not None and name not in self.names:
            raise ValueError(f"no run is pinned as {name!r}: there are {', '.join(self.names) or 'none'}")
        self._pins = [] if name is None else [pin for pin in self._pins if pin.curves.name != name]
        self._show()

    def _show(self) -> None:
        with self.table.hold_sync():
            self.table.caption = "Runs compared" if self._pins else ""
            self.table.rows = [self._live, *(pin.row for pin in self._pins)] if self._pins else []


def described(name: str, decode: Decode, settings: Settings | None) -> list[str]:
    """A row under `COLUMNS`."""
    tables = decode.tables
    seconds, rate = tables.seconds_per_token, tables.acceptance_rate
    prompt = visible(decode.prompt).replace("\n", "")
    equal = {None: "not checked", True: "yes", False: "no"}[decode.equal]
    return [
        name,
        prompt if len(prompt) <= 28 else prompt[:27] + "…",
        settings_in_words(settings) + ("; changed while it ran" if tables.settings_changes else ""),
        str(tables.new_tokens),
        _number(None if rate is None else 100 * rate, 0, " %"),
        _number(tables.tokens_per_round, 2),
        _number(tables.mean_exit_depth, 1),
        _number(tables.layer_passes_per_token, 1, f" of {decode.num_layers}"),
        _number(1 / seconds if seconds else None, 1),
        _number(decode.speedup, 2, "×"),
        equal,
    ]


def settings_in_words(settings: Settings | None) -> str:
    """Short enough for a table."""
    if settings is None:
        return "–"
    words = [_schedule(settings.schedule)]
    words.append("never exits" if settings.threshold == NEVER else f"threshold {settings.threshold:.3g}")
    if settings.max_depth is not None:
        words.append(f"depth ≤ {settings.max_depth}")
    words.append("any width" if settings.max_width is None else f"width ≤ {settings.max_width}")
    if settings.exit_layers is not None:
        words.append("exits " + ", ".join(map(str, settings.exit_layers)))
    return "; ".join(words)


def _schedule(schedule: Schedule) -> str:
    if isinstance(schedule, PerLayerTemperature):
        return "T = " + ", ".join(f"{layer}: {value:.3g}" for layer, value in schedule.values.items())
    alpha = getattr(schedule, "alpha", None)
    if alpha is not None:
        return f"{schedule.kind}, α = {alpha:.3g}"
    if isinstance(schedule, ConstantTemperature):
        return f"constant T = {schedule.value:.3g}"
    return "no annealing" if isinstance(schedule, NoAnnealing) else repr(schedule)


def _number(value: float | None, digits: int, unit: str = "") -> str:
    return "–" if value is None or value != value else f"{value:.{digits}f}{unit}"
