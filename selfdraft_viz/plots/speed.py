"""Speed: tokens per second, now and over the run, against ordinary decoding."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from selfdraft_viz.plots.colours import ACCEPTED, INK
from selfdraft_viz.plots.style import axis, nice_ceiling
from selfdraft_viz.plots.tables import Table, numbers, words

WINDOW = 16
"""Tokens over which the speed "now" is taken, and those of the round in which the window begins."""


def speed_traces() -> list[go.Scatter]:
    """The traces of the view without data: the speed now, over the run so far, and of ordinary decoding."""
    hover = "%{y:.1f} tokens per second<extra>%{fullData.name}</extra>"
    return [
        go.Scatter(
            name=f"now (last {WINDOW} tokens)",
            mode="lines",
            line={"color": ACCEPTED, "width": 1.5},
            hovertemplate=hover,
            legend="legend5",
        ),
        go.Scatter(
            name="whole run",
            mode="lines",
            line={"color": ACCEPTED, "width": 3.5},
            opacity=0.55,
            hovertemplate=hover,
            legend="legend5",
        ),
        go.Scatter(
            name="ordinary decoding",
            mode="lines",
            line={"color": INK, "width": 2, "dash": "dash"},
            hovertemplate=hover,
            legend="legend5",
        ),
    ]


def speed_data(tokens: Table, plain_tokens: Table | None = None) -> list[dict[str, Any]]:
    """What `speed_traces` show.

    Args:
        tokens: columns position, kind, round, seconds.
        plain_tokens: the same of ordinary decoding of the same prompt; None = not measured.
    """
    position, now, run = tokens_per_second(tokens)
    data: list[dict[str, Any]] = [{"x": position, "y": now}, {"x": position, "y": run}]
    if plain_tokens is None:
        return [*data, {"x": np.zeros(0, "int32"), "y": np.zeros(0, "float32")}]
    plain_position, _, plain_run = tokens_per_second(plain_tokens)
    return [*data, {"x": plain_position, "y": plain_run}]


def tokens_per_second(tokens: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position, speed over the last `WINDOW` tokens, speed since the first token: each (new tokens - 1,).

    Seconds are decoding time; the prefill and the first token are left out. A round commits its tokens all at once, so
    a window that begins within a round is widened to that round's beginning.
    """
    new = words(tokens, "kind") != "prompt"
    position, seconds = numbers(tokens, "position")[new], numbers(tokens, "seconds")[new]
    count = np.arange(len(seconds))
    since = window_starts(numbers(tokens, "round")[new])
    with np.errstate(divide="ignore", invalid="ignore"):
        now = (count - since) / (seconds - seconds[since]) if len(seconds) else seconds
        run = count / (seconds - seconds[0]) if len(seconds) else seconds
    now, run = np.where(np.isfinite(now), now, np.nan), np.where(np.isfinite(run), run, np.nan)
    return position[1:].astype("int32"), now[1:].astype("float32"), run[1:].astype("float32")


def window_starts(rounds: np.ndarray) -> np.ndarray:
    """(new tokens,): the token since which the speed "now" of each is taken.

    Args:
        rounds: each new token's round; NaN where tokens come one by one.
    """
    count = np.arange(len(rounds))
    begins = np.ones(len(rounds), dtype=bool)
    begins[1:] = ~(rounds[1:] == rounds[:-1])  # NaN equals nothing: each such token begins anew
    round_start = np.maximum.accumulate(np.where(begins, count, 0)) if len(rounds) else count
    in_window = np.clip(count - WINDOW + 1, 0, None)
    return np.maximum(round_start[in_window] - 1, 0)


def speed_axis(fastest: float) -> dict[str, Any]:
    """Tokens per second, up to a round figure that covers `fastest`."""
    return axis("tokens / s", range=[0, nice_ceiling(max(fastest, 1.0))], nticks=5)
