"""Adaptive policies whose numbers are taken from a cost model. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from selfdraft_viz.lab.costs import Costs
from selfdraft_viz.lab.record import DenseRecord
from selfdraft_viz.lab.replay import Replay, replay_many
from selfdraft_viz.policies import CostAware, PaperBounds
from selfdraft_viz.settings import Settings


def cost_aware(
    costs: Costs, records: Mapping[str, DenseRecord], settings: Settings, *, patience: float = 16.0, steps: int = 3
) -> CostAware:
    """A cost-aware policy for `settings`, its prices taken from what replaying `records` would cost.

    What a token is worth is what it costs under the policy itself; a few steps of using the one to price the other
    settle it.

    Args:
        costs: prices of a machine.
        records: by kind, as of the texts that will be decoded.
        settings: the rest of what decides; their own policy is left out of account.
        patience: see `CostAware`.
        steps: at least 1.
    """
    policy: Any = PaperBounds()
    for _ in range(steps):
        one = [settings.replace(policy=policy)]
        counts = sum(replay_many(record, one).sum(axis=(0, 1)) for record in records.values())
        total = Replay(*np.asarray(counts).tolist())
        policy = CostAware(costs.row_price(total), float(costs.seconds_per_token(total)), patience)
    return policy
