"""The figures of a run as tiles, what it is doing, whether it equals ordinary decoding, and errors, in words."""

from __future__ import annotations

import anywidget
import traitlets

from selfdraft_viz.text import Pieces
from selfdraft_viz.widgets.assets import STATIC
from selfdraft_viz.widgets.live import LiveTables

_NOTHING = "–"


class Readout(anywidget.AnyWidget):
    """Attributes: tiles (lists of name, value, unit, explanation), status, verdict, error; all plain text."""

    _esm = (STATIC / "readout.js").read_text(encoding="utf-8")
    _css = (STATIC / "readout.css").read_text(encoding="utf-8")
    tiles: traitlets.List = traitlets.List().tag(sync=True)
    status = traitlets.Unicode("").tag(sync=True)
    verdict = traitlets.Unicode("").tag(sync=True)
    error = traitlets.Unicode("").tag(sync=True)


def tiles(
    tables: LiveTables | None, max_new_tokens: int, num_layers: int, speed_now: float | None, speedup: float | None
) -> list[list[str]]:
    """Rows for `Readout.tiles`. `speed_now` in tokens per second; `speedup` as measured, None before that."""
    tables = tables or LiveTables(Pieces(None))
    seconds, rate = tables.seconds_per_token, tables.acceptance_rate
    of_layers = f"of {num_layers}"
    return [
        ["new tokens", str(tables.new_tokens), f"of {max_new_tokens}", "Tokens committed so far."],
        [
            "tokens/s now",
            _number(speed_now, 1),
            "",
            "Tokens per second of decoding time, over the last 16 tokens. Drawing and pauses are left out.",
        ],
        ["tokens/s run", _number(1 / seconds if seconds else None, 1), "", "Tokens per second since the first token."],
        [
            "speedup",
            _number(speedup, 2),
            "×" if speedup else "",
            "Ordinary seconds per token / self-draft seconds per token, measured on this prompt in this process.",
        ],
        ["acceptance", _number(None if rate is None else 100 * rate, 0), "%", "Acceptance rate: accepted / drafted."],
        ["tokens/round", _number(tables.tokens_per_round, 2), "", "Committed tokens / rounds."],
        ["exit depth", _number(tables.mean_exit_depth, 1), of_layers, "Mean exit depth: layers, over drafted tokens."],
        [
            "passes/token",
            _number(tables.layer_passes_per_token, 1),
            of_layers,
            f"Layers run, each once over however many rows, per new token. Ordinary decoding has exactly {num_layers}.",
        ],
    ]


def _number(value: float | None, digits: int) -> str:
    return _NOTHING if value is None or value != value else f"{value:.{digits}f}"
