"""What a layer pass, an exit check and the LM head cost on this machine, measured; and what a replay would then
take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfdraft_viz.lab.replay import Replay

if TYPE_CHECKING:
    from selfdraft_viz.model import Model


@dataclass(frozen=True)
class Costs:
    """Seconds on one machine.

    Attributes:
        layer, layer_rows: a layer pass of one row, and of `rows` rows.
        head, head_rows: final norm and LM head on one row, and on `rows`.
        exit_check: one exit head on one row, with the read back of its decision.
        per_draft: what a row of drafting costs beside its layer passes and checks.
        rows: see above.
    """

    layer: float
    layer_rows: float
    head: float
    head_rows: float
    exit_check: float
    per_draft: float
    rows: int

    def selfdraft(self, replay: Replay) -> float:
        """Predicted seconds per new token of self-draft decoding."""
        total = (
            replay.draft_layer_passes * self.layer
            + replay.exit_checks * self.exit_check
            + replay.verified_rows * self.per_draft
            + replay.verification_layer_passes * self.layer_rows
            + replay.rounds * self.head_rows
        )
        return total / max(1, replay.new_tokens)

    def plain(self, num_layers: int) -> float:
        """Predicted seconds per token of ordinary decoding."""
        return num_layers * self.layer + self.head + self.per_draft


def measure_costs(model: Model, *, context: int = 128, rows: int = 4, repeats: int = 60) -> Costs:
    """Time the parts of decoding on `model`, after `context` tokens: medians of `repeats`, taken in turn."""
    from selfdraft_viz.decoding.request import Request
    from selfdraft_viz.decoding.selfdraft import read_exit

    layered = model.layered
    token = min(model.end_of_sequence_ids, default=0)
    request = Request(layered, model.heads, (token,), 1, frozenset(), detail="tokens")
    staircase = layered.open(context + rows)
    staircase.push([token] * context)
    staircase.advance(layered.num_layers)
    exit_layer = model.exit_layers[0]

    def embed(count: int) -> None:
        staircase.truncate(context)
        staircase.push([token] * count)

    def head(count: int) -> None:
        staircase.logits(staircase.rows - count, staircase.rows).max(dim=-1).values.tolist()

    parts: dict[str, Callable[[], object]] = {
        "per_draft": lambda: embed(1),
        "layer": lambda: staircase.advance(layered.num_layers),
        "exit_check": lambda: read_exit(request, staircase.hidden_states(context, context + 1), exit_layer, 1.0),
        "head": lambda: head(1),
        "embed_rows": lambda: embed(rows),
        "layer_rows": lambda: staircase.advance(layered.num_layers),
        "head_rows": lambda: head(rows),
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(repeats + 5):
        for name, part in parts.items():
            started = time.perf_counter()
            part()
            times[name].append(time.perf_counter() - started)
    median = {name: statistics.median(values[5:]) for name, values in times.items()}
    return Costs(
        layer=median["layer"] / layered.num_layers,
        layer_rows=median["layer_rows"] / layered.num_layers,
        head=median["head"],
        head_rows=median["head_rows"],
        exit_check=median["exit_check"],
        per_draft=median["per_draft"],
        rows=rows,
    )
