"""All views of a session, drawn together and linked: what is selected in one is selected in all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import ipywidgets as ipw

from selfdraft_viz.events import ExitCheck
from selfdraft_viz.settings import Settings
from selfdraft_viz.widgets.live_figure import LiveDashboard
from selfdraft_viz.widgets.look import Look, look
from selfdraft_viz.widgets.pins import Pins
from selfdraft_viz.widgets.playback import Playback
from selfdraft_viz.widgets.readout import Readout, tiles
from selfdraft_viz.widgets.selection import ExitsView, TokenPanel, described
from selfdraft_viz.widgets.session import Decode
from selfdraft_viz.widgets.terms import Terms
from selfdraft_viz.widgets.text_view import TextView


class Views:
    """Drawn by one thread at a time: that of the run while there is one.

    Args:
        exit_layers, num_layers: of the model whose decodes are shown.
        failed: called with an exception that a view's own work ended in.
        told: called with the line of Python that does what a click in a view has done.

    Attributes:
        main, side: the widgets, wide and narrow.
        readout: figures of the run, status and errors.
        pins: runs that were kept.
        selected: the selected position, or None.
    """

    def __init__(
        self,
        exit_layers: Sequence[int],
        num_layers: int,
        failed: Callable[[Exception], None],
        told: Callable[[str], None] = lambda code: None,
    ) -> None:
        self._lock = threading.RLock()
        self._failed, self._told = failed, told
        self._layers = tuple(exit_layers), num_layers
        self._session: Decode | None = None
        self._looks: dict[int, list[Look]] = {}
        self.selected: int | None = None
        self.readout = Readout(status="ready")
        self.text = TextView(exit_layers, num_layers, self._chosen, self._described)
        self.playback = Playback(num_layers, self._chosen)
        self.dashboard = LiveDashboard(exit_layers, num_layers, self._chosen)
        self.exits = ExitsView(exit_layers, num_layers)
        self.token = TokenPanel(self._look_asked)
        self.pins = Pins()
        self.main = ipw.VBox(
            [
                self.readout,
                self.text,
                self.playback.box,
                Terms(
                    "staircase", "row", "front", "prefill", "draft", "catch-up", "verification", "dropped",
                    "exit check", "round",
                ),
                self.dashboard,
                Terms(
                    "exit depth", "confidence", "threshold", "acceptance rate", "why drafting stopped",
                    "tokens per second", "ordinary decoding", "speedup",
                ),
                self.pins.table,
            ]
        )  # fmt: skip
        self.main.add_class("sv-views")
        words = Terms("exit temperature", "annealing", "exit layer", "exit head", "hard token", "logit lens")
        self.side = ipw.VBox([self.exits, self.token.box, words], layout=ipw.Layout(overflow="visible"))
        self.readout.tiles = tiles(None, 0, num_layers, None, None)

    def set_model(self, exit_layers: Sequence[int], num_layers: int) -> None:
        """Whose layers are shown from here on; empties the views where they are others."""
        with self._lock:
            if (tuple(exit_layers), num_layers) == self._layers:
                return
            self._layers = tuple(exit_layers), num_layers
            self._session, self.selected, self._looks = None, None, {}
            self.text.set_model(exit_layers, num_layers)
            self.playback.set_model(num_layers)
            self.dashboard.set_model(exit_layers, num_layers)
            self.exits.set_model(exit_layers, num_layers)
            self.token.clear()

    def start(self, session: Decode, settings: Settings | None) -> None:
        """A session begins: everything is emptied, axes are fixed."""
        with self._lock:
            self.set_model(session.exit_layers, session.num_layers)
            if settings is not None:
                self.exits.show_settings(settings)
            self._session = session
            self._looks = {}
            self.selected = None
            self.readout.error = self.readout.verdict = ""
            self.text.clear(session.prompt, hint="")
            self.playback.start(session.num_layers, session.capacity, session.tables.text_of)
            self.dashboard.start(
                len(session.prompt_ids), session.max_new_tokens, settings.max_width if settings else None
            )
            self.exits.show_token([])
            self.token.clear()

    def frame(self, session: Decode, whole: bool) -> None:
        """Draw what is new; `whole` where it will stay for a while."""
        with self._lock:
            if session is not self._session:
                return
            session.read()
            tables = session.tables
            if session.stage == "checking" and not whole:
                self.dashboard.show_speed(tables, session.plain)
            else:
                settled = session.stage != "decoding" or session.state != "running"
                self.text.update(tables)
                self.playback.follow(session.events, settled)
                self.dashboard.show(tables, session.plain)
                self.exits.show_depths(tables)
            self._show_figures(session)
            if whole:
                self._describe(session)
                if len(self.pins):
                    self.pins.show_live(session, session.settings)

    def show_settings(self, settings: Settings, exit_layers: Sequence[int], num_layers: int) -> None:
        """Settings have moved, of the model with these layers. A trace of another model is left alone."""
        with self._lock:
            if (tuple(exit_layers), num_layers) == self._layers:
                self.exits.show_settings(settings)

    def select(self, position: int) -> None:
        """Select the token at a position in every view.

        Raises:
            ValueError: there is no such new token.
        """
        with self._lock:
            session = self._session
            if session is None:
                raise ValueError(f"position {position}: nothing has been decoded yet")
            first, count = len(session.prompt_ids), session.tables.new_tokens
            if not first <= position < first + count:
                raise ValueError(f"position {position} is no new token: use {first}..{first + count - 1}")
            self.selected = position
            self.text.select(position)
            self.dashboard.select(position)
            self.playback.show_position(position)
            self._show_token(session, position)

    def look(self, position: int) -> list[Look]:
        """What every exit and the last layer say about the token at a position; computed once."""
        session = self._session
        if session is None or session.model is None or session.settings is None:
            return []
        if position not in self._looks:
            self._looks[position] = look(session.model, session.tables.sequence[:position], session.settings)
        return self._looks[position]

    def show_looks(self, position: int) -> list[Look]:
        """`look`, shown as well."""
        looks = self.look(position)
        with self._lock:
            if self._session is not None and position == self.selected:
                self._show_token(self._session, position)
        return looks

    def pin(self, name: str | None = None) -> str:
        """Keep the run as it is at the moment: a row of the table, thin lines in the plots. Returns its name.

        Raises:
            ValueError: nothing has been decoded yet.
        """
        with self._lock:
            session = self._session
            if session is None or not session.tables.new_tokens:
                raise ValueError("there is no run to pin yet: run one first")
            added = self.pins.add(session, session.settings, name)
            self.dashboard.pin(self.pins.curves)
            return added

    def unpin(self, name: str | None = None) -> None:
        """Let go of a pinned run; None = of all.

        Raises:
            ValueError: there is none of that name.
        """
        with self._lock:
            self.pins.remove(name)
            self.dashboard.pin(self.pins.curves)

    def _show_token(self, session: Decode, position: int) -> None:
        checks = session.checks_of(position)
        self.exits.show_token(checks)
        self.token.show(
            self._label(session, position),
            checks,
            self._looks.get(position, []),
            session.num_layers,
            lambda token_id: session.tables.text_of(position, token_id),
        )

    def _label(self, session: Decode, position: int) -> str:
        tokens, index = session.tables.tokens, position - len(session.prompt_ids)
        text = session.tables.text_of(position, tokens["token_id"][index])
        return f"‘{text}’ at position {position}: {tokens['kind'][index]}, exit depth {tokens['exit_depth'][index]}"

    def _described(self, position: int) -> str:
        session = self._session
        if session is None or not 0 <= position - len(session.prompt_ids) < session.tables.new_tokens:
            return ""
        checks: list[ExitCheck] = session.checks_of(position)
        looks = self.look(position) if checks and session.state == "ended" else self._looks.get(position, [])
        label = self._label(session, position)
        return described(label, looks, checks, lambda token_id: session.tables.text_of(position, token_id))

    def _chosen(self, position: int) -> None:
        try:
            self.select(position)
            self._told(f"explorer.select({position})")
        except ValueError:  # a click beside the new tokens
            pass
        except Exception as error:
            self._failed(error)

    def _look_asked(self) -> None:
        if self._session is None or self.selected is None:
            return
        try:
            self.show_looks(self.selected)
            self._told(f"explorer.look({self.selected})")
        except Exception as error:
            self._failed(error)

    def _describe(self, session: Decode) -> None:
        """What the plots show, in words, for who cannot see them."""
        tables = session.tables
        committed = tables.tokens["exit_depth"]
        early = sum(depth < session.num_layers for depth in committed)
        rate = (
            "no drafts yet"
            if tables.acceptance_rate is None
            else f"{100 * tables.acceptance_rate:.0f} % of drafts accepted"
        )
        self.dashboard.description = (
            f"Over {tables.new_tokens} new tokens: {early} left early, {tables.new_tokens - early} came from all "
            f"{session.num_layers} layers; {len(tables.rounds['round'])} rounds, {rate}"
        )
        counts = {depth: committed.count(depth) for depth in sorted(set(committed))}
        depths = ", ".join(f"{count} from depth {depth}" for depth, count in counts.items())
        self.exits.description = f"Tokens by exit depth: {depths or 'none yet'}"

    def _show_figures(self, session: Decode) -> None:
        tables = session.tables
        with self.readout.hold_sync():
            self.readout.tiles = tiles(
                tables, session.max_new_tokens, session.num_layers, session.speed_now, session.speedup
            )
            self.readout.status = session.status()
            self.readout.verdict = session.verdict()
            if tables.refusal is not None:
                self.readout.error = tables.refusal
