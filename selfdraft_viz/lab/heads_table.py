"""What trained exit heads are worth and what they cost, exit by exit."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd
import torch

from selfdraft_viz.decoding.request import Request
from selfdraft_viz.decoding.selfdraft import read_exit

if TYPE_CHECKING:
    from selfdraft_viz.heads import ExitHeads
    from selfdraft_viz.model import Model


def heads_table(model: Model, heads: ExitHeads, *, repeats: int = 40) -> pd.DataFrame:
    """Agreement before and after training, and the time of an exit check, measured here and now.

    Args:
        model: what the heads were trained for.
        heads: what `train_exit_heads` returned.
        repeats: timed calls of each part; the parts take turns, in an order of chance, and medians are kept.

    Returns:
        One row an exit: `exit_layer`; `before` and `after`, agreement with the final layer on the text kept out of
        training (logit lens, trained); `check_ms`, milliseconds of one check of one row as a decode makes it (head,
        maximum and log-partition, read back); `check_layers`, the same in passes of one layer over one row;
        `parameters`, the numbers in the exit's translator. And, of all exits together, what training took:
        `training_tokens`, `training_seconds`.
    """
    layered, placed = model.layered, heads.to(model.device, model.dtype)
    request = Request(layered, placed, (0,), 1, frozenset(), detail="checks")
    hidden = torch.randn(1, layered.width, device=model.device, dtype=model.dtype)
    staircase = layered.open(repeats + 8)

    def check(layer: int) -> Callable[[], object]:
        return lambda: read_exit(request, hidden, layer, temperature=1.0)

    def layers() -> object:
        staircase.truncate(0)
        staircase.push([0])
        staircase.advance(layered.num_layers)
        return staircase.hidden_states(0, 1).sum().item()

    parts = {0: layers, **{layer: check(layer) for layer in heads.exit_layers}}
    times: dict[int, list[float]] = {name: [] for name in parts}
    with torch.inference_mode():
        for turn in range(repeats + 3):
            order = list(parts)
            random.Random(turn).shuffle(order)  # what ran before has an effect on what is in the processor's caches
            for name in order:
                started = time.perf_counter()
                parts[name]()
                if turn >= 3:
                    times[name].append(time.perf_counter() - started)
    median = {name: statistics.median(values) for name, values in times.items()}
    one_layer = median.pop(0) / layered.num_layers
    training = heads.metadata.get("training", {})
    agreement = training.get("agreement", {})
    rows = [
        {
            "exit_layer": layer,
            "before": agreement.get(str(layer), {}).get("before", float("nan")),
            "after": agreement.get(str(layer), {}).get("after", float("nan")),
            "check_ms": 1e3 * seconds,
            "check_layers": seconds / one_layer,
            "parameters": sum(tensor.numel() for tensor in heads.translators[layer]) if heads.translators else 0,
            "training_tokens": training.get("tokens", 0),
            "training_seconds": training.get("seconds", 0.0),
        }
        for layer, seconds in median.items()
    ]
    return pd.DataFrame(rows)
