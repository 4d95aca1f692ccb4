"""The schedule lab: sliders over a recorded set of texts, answered by replay instead of decoding."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as ipw
import numpy as np
import pandas as pd

from selfdraft_viz.errors import SelfDraftError, SettingsError
from selfdraft_viz.lab.costs import Costs
from selfdraft_viz.lab.decisions import plans_of
from selfdraft_viz.lab.record import DenseRecord
from selfdraft_viz.lab.replay import replay_tokens
from selfdraft_viz.lab.whatif import alpha_threshold_grid, replay_table, token_changes
from selfdraft_viz.plots.whatif import alpha_threshold_heatmap, speed_colours, token_changes_data, token_changes_plot
from selfdraft_viz.schedules import LinearAnnealing
from selfdraft_viz.settings import Settings
from selfdraft_viz.widgets.plot_view import PlotView
from selfdraft_viz.widgets.settings_controls import SettingsControls

_GRID_ROWS = 30_000  # (settings x recorded rows) replayed for the heat map
_ALPHAS = np.round(np.arange(-0.5, 1.51, 0.2), 2).tolist()
_THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.1), 2).tolist()


class ScheduleLab(ipw.VBox):
    """What any settings would do to recorded texts, as they are moved: predicted, never measured.

    Args:
        records: by kind, all with the same exits.
        costs: prices of the machine to predict for.
        settings: to start with, and what changes are told against; see `pin`.
        measured: columns alpha, threshold, measured: points for the heat map; None = none.
        tokenizer: for the texts of tokens; None = their ids.

    Attributes:
        table: predicted figures by kind for the settings in force; see `selfdraft_viz.lab.whatif.replay_table`.
        seconds: what the last answer took in Python.

    Raises:
        SettingsError: there are no records, or the settings do not fit them.
    """

    def __init__(
        self,
        records: Mapping[str, DenseRecord],
        costs: Costs,
        settings: Settings,
        *,
        measured: pd.DataFrame | None = None,
        tokenizer: Any | None = None,
    ) -> None:
        if not records:
            raise SettingsError("no records: give at least one, by kind")
        self._records, self._costs, self._measured = dict(records), costs, measured
        self._tokenizer = tokenizer
        first = next(iter(self._records.values()))
        rows = sum(record.true_ids[:, record.start :].size for record in self._records.values())
        share = min(1.0, _GRID_ROWS / (len(_ALPHAS) * len(_THRESHOLDS) * rows))
        self._grid_records = {kind: _share_of(record, share) for kind, record in self._records.items()}
        self._lock = threading.RLock()
        self._pinned = settings
        self._grid_for: Settings | None = None
        self._before: tuple[Any, pd.DataFrame, list[str] | None] | None = None  # what changes are told against
        self.seconds = 0.0
        self.table = self._pinned_table = replay_table(self._records, costs, [settings])
        self._controls = SettingsControls(first.exit_layers, first.num_layers, settings, self._moved, self._refused)
        self._text = ipw.Dropdown(
            options=[
                (f"{kind} {index + 1}", (kind, index))
                for kind, record in self._records.items()
                for index in range(len(record.token_ids))
            ],
            description="text",
            layout=ipw.Layout(width="220px"),
        )
        self._text.observe(lambda _: self._moved(), "value")
        self._pin = ipw.Button(description="Compare from here", tooltip="Tell changes against the settings as they are")
        self._pin.on_click(lambda _: self.pin())
        self._readout = ipw.HTML()
        heat = alpha_threshold_heatmap(self._grid(settings), measured, title=self._grid_title())
        heat.data[1].update(name="now", hovertemplate="now: %{x:.2f}, %{y:.2f}<extra></extra>")
        self._heat = PlotView(
            heat,
            description="Predicted speedup over annealing strength and threshold",
        )
        self._tokens = PlotView(
            token_changes_plot(*self._changes(settings)),
            description="Exit depth of each token, before and after the change",
        )
        super().__init__(
            [
                ipw.HBox(
                    [
                        ipw.VBox([self._controls.box], layout=ipw.Layout(flex="0 0 330px")),
                        ipw.VBox([self._readout, self._heat], layout=ipw.Layout(flex="1 1 520px", min_width="0")),
                    ],
                    layout=ipw.Layout(flex_flow="row wrap"),
                ),
                ipw.HBox([self._text, self._pin]),
                self._tokens,
            ]
        )
        self._answer()

    @property
    def settings(self) -> Settings:
        """What the controls show; setting it moves them, and everything follows.

        Raises:
            SettingsError: they do not fit the records, or need temperatures that these do not hold.
        """
        return self._controls.settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        with self._lock:
            plans_of(next(iter(self._records.values())), [settings])  # refuse before anything moves
            self._controls.set(settings)
            self._answer()

    def pin(self) -> None:
        """From now on, changes are told against the settings as they are."""
        with self._lock:
            self._pinned, self._pinned_table = self.settings, self.table
            self._answer()

    def _moved(self) -> None:
        with self._lock:
            try:
                self._answer()
            except SelfDraftError as error:
                self._refused(str(error))

    def _refused(self, message: str) -> None:
        self._readout.value = f'<p role="alert" style="color:#d9601a">{html.escape(message)}</p>'

    def _answer(self) -> None:
        started = time.perf_counter()
        settings = self.settings
        self._show_now(settings)
        self.table = replay_table(self._records, self._costs, [settings])
        self._readout.value = _readout(self.table, self._pinned_table, self._costs.name)
        self._show_heat(settings)
        self._tokens.update(token_changes_data(*self._changes(settings)))
        self.seconds = time.perf_counter() - started

    def _show_now(self, settings: Settings) -> None:
        now: dict[str, Any] = {"x": np.zeros(0), "y": np.zeros(0)}
        if isinstance(settings.schedule, LinearAnnealing) and settings.threshold <= 1:
            now = {"x": np.array([settings.schedule.alpha]), "y": np.array([settings.threshold])}
        self._heat.update([now], first_trace=1, axes_stay=True)

    def _show_heat(self, settings: Settings) -> None:
        rest = settings.replace(schedule=LinearAnnealing(0.0), threshold=0.5)
        if self._grid_for is None or rest != self._grid_for:
            grid = self._grid(settings)
            wide = grid.pivot(index="threshold", columns="alpha", values="predicted").to_numpy()
            seen = wide.ravel() if self._measured is None else np.append(wide, self._measured["measured"])
            scale = speed_colours(seen)
            patches: list[dict[str, Any]] = [{"z": wide.round(4).tolist()}, {}]
            patches[0] |= {"zmin": scale["cmin"], "zmax": scale["cmax"]}
            if self._measured is not None:
                patches.append({"marker.cmin": scale["cmin"], "marker.cmax": scale["cmax"]})
            self._grid_for = rest
            self._heat.update(patches)

    def _grid(self, settings: Settings) -> pd.DataFrame:
        return alpha_threshold_grid(self._grid_records, self._costs, settings, _ALPHAS, _THRESHOLDS)

    def _grid_title(self) -> str:
        used = sum(len(record.token_ids) for record in self._grid_records.values())
        total = sum(len(record.token_ids) for record in self._records.values())
        of = f" ({used} of {total} texts)" if used < total else ""
        return f"Predicted speedup, linear schedule{of}"

    def _changes(self, settings: Settings) -> tuple[pd.DataFrame, list[str] | None]:
        kind, index = self._text.value
        record = self._records[kind]
        shown = (kind, index, self._pinned)
        if self._before is None or self._before[0] != shown:
            before = replay_tokens(record, self._pinned, index)
            texts = self._tokenizer and [self._tokenizer.decode([token]) for token in before["token_id"]]
            self._before = (shown, before, texts)
        _, before, texts = self._before
        return token_changes(record, index, before, settings), texts


def _share_of(record: DenseRecord, share: float) -> DenseRecord:
    texts = len(record.token_ids)
    kept = max(1, int(texts * share))
    return record.take(np.linspace(0, texts - 1, kept).astype(int).tolist())


def _readout(table: pd.DataFrame, before: pd.DataFrame, where: str) -> str:
    heads: Sequence[tuple[str, str, str]] = (
        ("predicted", "predicted speedup", "{:.2f}x"),
        ("acceptance_rate", "accepted", "{:.0%}"),
        ("tokens_per_round", "tokens per round", "{:.2f}"),
        ("mean_exit_depth", "mean exit depth", "{:.1f}"),
        ("layer_passes_per_token", "layer passes per token", "{:.1f}"),
    )
    cells = "".join(f"<th style='text-align:right;padding:0 12px'>{title}</th>" for _, title, _ in heads)
    rows = []
    for now, then in zip(table.to_dict("records"), before.to_dict("records"), strict=True):
        values = []
        for name, _, form in heads:
            text = "–" if pd.isna(now[name]) else form.format(now[name])
            if not pd.isna(now[name]) and not pd.isna(then[name]) and form.format(then[name]) != text:
                text = f"<small style='opacity:.65'>{form.format(then[name])} →</small> {text}"
            values.append(f"<td style='text-align:right;padding:0 12px'>{text}</td>")
        rows.append(f"<tr><th style='text-align:left'>{html.escape(str(now['kind']))}</th>{''.join(values)}</tr>")
    note = f"Predicted for {html.escape(where)}; nothing here was timed."
    return f"<table><tr><th></th>{cells}</tr>{''.join(rows)}</table><small>{note}</small>"
