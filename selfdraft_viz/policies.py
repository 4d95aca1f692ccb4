"""Policies: whether a position exits, and whether a round goes on drafting, from what is known so far. No torch here.

SpecBound (arXiv 2604.12247) bounds speculation by fixed numbers and leaves open how to adapt it. A policy is asked at
every exit check and after every draft. It cannot change the text: what it lets through is verified like any draft. The
bounds of `Settings` hold for every policy; it can only stop a round earlier.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from selfdraft_viz.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Known:
    """What is known when a policy is asked.

    Attributes:
        confidences: annealed, 0..1, of the drafts of the round so far.
        exit_layers: the exits they left at.
        judged: drafts of earlier rounds that verification has judged: those accepted, and the first one that was not.
        accepted: how many of these stood.
        expected: the sum of their confidences: how many would have stood had each confidence been the chance of it.
    """

    confidences: tuple[float, ...] = ()
    exit_layers: tuple[int, ...] = ()
    judged: int = 0
    accepted: int = 0
    expected: float = 0.0

    def drafted(self, exit_layer: int, confidence: float) -> Known:
        """After one more draft."""
        confidences, layers = (*self.confidences, confidence), (*self.exit_layers, exit_layer)
        return Known(confidences, layers, self.judged, self.accepted, self.expected)

    def verified(self, accepted: int) -> Known:
        """After the round's verification, which let `accepted` of its drafts stand."""
        judged = self.confidences[: accepted + 1]
        return Known(
            judged=self.judged + len(judged),
            accepted=self.accepted + accepted,
            expected=self.expected + math.fsum(judged),
        )


@dataclass(frozen=True, eq=False)
class Policy:
    """Base class. One of your own overrides `exits`, `stops`, or both, and must not change while in use: what it may
    go by is in `known`. Make it a frozen dataclass if two of equal values are to count as equal."""

    kind: ClassVar[str] = ""

    def exits(self, exit_layer: int, confidence: float, threshold: float, known: Known) -> bool:
        """Whether the newest position exits after `exit_layer` layers, with that annealed confidence."""
        return confidence >= threshold

    def stops(self, known: Known) -> bool:
        """Whether the round stops drafting; asked after each draft, which `known` counts already."""
        return False

    def to_dict(self) -> dict[str, Any]:
        """The policy as plain JSON data, with its `kind`."""
        if not self.kind:
            raise SettingsError(
                f"the policy {self!r} has no `kind`, so it cannot be saved: save the settings with a shipped policy"
            )
        return {"kind": self.kind, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class PaperBounds(Policy):
    """The paper's rule: exit at the threshold, draft on until a bound of the settings is met."""

    kind: ClassVar[str] = "paper"


@dataclass(frozen=True)
class ProductOfConfidences(Policy):
    """Stop when the product of the round's confidences, the chance that all its drafts stand if each confidence is the
    chance of its own draft, falls below `least` (0..1)."""

    least: float = 0.4
    kind: ClassVar[str] = "product"

    def __post_init__(self) -> None:
        object.__setattr__(self, "least", _checked("least", self.least, 0, 1))

    def stops(self, known: Known) -> bool:
        return math.prod(known.confidences) < self.least


@dataclass(frozen=True)
class CostAware(Policy):
    """Draft on while that is expected to pay.

    One more row costs `draft_cost`: its layers up to an exit, its checks, its place in the verification. If all drafts
    so far stand, verification turns it into one more token whatever it drafts (an accepted draft, a correction or the
    bonus), which is worth `token_value`, what a token costs on average. So the round goes on while

        chance that all drafts so far stand x token_value >= draft_cost.

    The chance is the product of the round's confidences, each corrected by how the drafts judged so far fared against
    theirs: heads that are surer than right are trusted less as the decode goes on, modest ones more. `patience` drafts
    weigh as much as what is known at the start, that confidences are right.

    Attributes:
        draft_cost, token_value: above 0, in any one unit; `selfdraft_viz.lab.policies.cost_aware` takes them from a
            cost model.
        patience: above 0, in drafts.
    """

    draft_cost: float = 1.0
    token_value: float = 3.0
    patience: float = 16.0
    kind: ClassVar[str] = "cost-aware"

    def __post_init__(self) -> None:
        for name in ("draft_cost", "token_value", "patience"):
            object.__setattr__(self, name, _checked(name, getattr(self, name), 0, math.inf, above=True))

    def stops(self, known: Known) -> bool:
        correction = (known.accepted + self.patience) / (known.expected + self.patience)
        chance = math.prod(min(1.0, confidence * correction) for confidence in known.confidences)
        return chance * self.token_value < self.draft_cost


@dataclass(frozen=True)
class UnsavedPolicy(Policy):
    """What a saved trace keeps of a policy of one's own: its `description`. It decides nothing."""

    description: str = ""
    kind: ClassVar[str] = "unsaved"

    def exits(self, exit_layer: int, confidence: float, threshold: float, known: Known) -> bool:
        raise SettingsError(f"the policy {self.description} was not saved with its trace: give the settings another")


POLICIES: dict[str, type[Policy]] = {
    cls.kind: cls for cls in (PaperBounds, ProductOfConfidences, CostAware, UnsavedPolicy)
}


def policy_from_dict(data: Any) -> Policy:
    """The inverse of `Policy.to_dict`.

    Raises:
        SettingsError: the kind is unknown, or its values are unknown or out of range.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("kind"), str) or data["kind"] not in POLICIES:
        raise SettingsError(f"unknown policy {data!r}: `kind` is one of {', '.join(map(repr, POLICIES))}")
    try:
        return POLICIES[data["kind"]](**{name: value for name, value in data.items() if name != "kind"})
    except TypeError as error:
        raise SettingsError(f"the policy {dict(data)!r} cannot be read: {error}") from error


def _checked(name: str, value: Any, low: float, high: float, above: bool = False) -> float:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and low <= value <= high and not (above and value == low)):
        allowed = f"a finite number above {low}" if above else f"a number in {low}..{high}"
        raise SettingsError(f"{name}={value!r}: use {allowed}")
    return float(value)
