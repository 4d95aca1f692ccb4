"""Settings of a self-draft decode, and how tokens are sampled. No torch here."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from selfdraft_viz.errors import SettingsError
from selfdraft_viz.policies import PaperBounds, Policy, policy_from_dict
from selfdraft_viz.schedules import LinearAnnealing, PerLayerTemperature, Schedule, schedule_from_dict

NEVER = math.inf
"""A threshold that no confidence reaches: every token is hard, nothing is drafted.

`threshold=1` is something else: a confidence can round to 1.0, and then the position does exit.
"""


@dataclass(frozen=True)
class Settings:
    """What decides where a position exits and how far a round speculates (SpecBound, arXiv 2604.12247).

    Attributes:
        schedule: exit temperatures T_l; see `selfdraft_viz.schedules`.
        threshold: a position exits at the first exit layer whose confidence is >= this. In 0..1, or `NEVER`.
        max_depth: the deepest exit layer that is tried, in layers (1..L-1); None = no bound.
        max_width: the most tokens drafted in a round, at least 1; None = no bound.
        exit_layers: those of the model's exit layers that are tried; None = all of them.
        policy: decides within these bounds; see `selfdraft_viz.policies`.
    """

    schedule: Schedule = LinearAnnealing(1.0)  # noqa: RUF009 - it is frozen
    threshold: float = 0.6
    max_depth: int | None = None
    max_width: int | None = 6
    exit_layers: tuple[int, ...] | None = None
    policy: Policy = PaperBounds()  # noqa: RUF009 - it is frozen

    def __post_init__(self) -> None:
        if not isinstance(self.schedule, Schedule):
            raise SettingsError(
                f"schedule={self.schedule!r} is not a schedule: use NoAnnealing(), LinearAnnealing(1.0), "
                "PerLayerTemperature({...}) or another subclass of Schedule"
            )
        threshold = _number("threshold", self.threshold, "a number in 0..1, or selfdraft_viz.NEVER")
        if not (0 <= threshold <= 1 or threshold == NEVER):
            raise SettingsError(
                f"threshold={self.threshold!r}, but a confidence lies in 0..1: use a number in 0..1, "
                "or selfdraft_viz.NEVER for a decode in which nothing exits"
            )
        object.__setattr__(self, "threshold", threshold)
        object.__setattr__(self, "max_depth", _bound("max_depth", self.max_depth))
        object.__setattr__(self, "max_width", _bound("max_width", self.max_width))
        if self.exit_layers is not None:
            object.__setattr__(self, "exit_layers", check_exit_layers(self.exit_layers))
        if not isinstance(self.policy, Policy):
            raise SettingsError(
                f"policy={self.policy!r} is not a policy: use PaperBounds(), ProductOfConfidences(0.4), CostAware(...) "
                "or another subclass of Policy"
            )

    def replace(self, **changes: Any) -> Settings:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def plan(self, exit_layers: Sequence[int], num_layers: int) -> Plan:
        """These settings worked out for a model with `num_layers` layers and exit heads at `exit_layers`.

        Raises:
            SettingsError: they do not fit the model; the message says which value, what range, and the remedy.
        """
        return _plan(self, tuple(exit_layers), num_layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; `NEVER` becomes the word "never"."""
        return {
            "schedule": self.schedule.to_dict(),
            "threshold": "never" if self.threshold == NEVER else self.threshold,
            "max_depth": self.max_depth,
            "max_width": self.max_width,
            "exit_layers": None if self.exit_layers is None else list(self.exit_layers),
            **({} if self.policy == PaperBounds() else {"policy": self.policy.to_dict()}),
        }

    @classmethod
    def from_dict(cls, data: Any) -> Settings:
        """The inverse of `to_dict`; missing fields take their defaults.

        Raises:
            SettingsError: a field is unknown or out of range.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(data, dict) or not set(data) <= set(names):
            raise SettingsError(f"{data!r} are not settings: use an object with the fields {', '.join(names)}")
        values = dict(data)
        if "schedule" in values:
            values["schedule"] = schedule_from_dict(values["schedule"])
        if "policy" in values:
            values["policy"] = policy_from_dict(values["policy"])
        if values.get("threshold") == "never":
            values["threshold"] = NEVER
        return cls(**values)

    def save(self, path: str | Path) -> None:
        """Write a small JSON file."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Settings:
        """Read what `save` wrote.

        Raises:
            SettingsError: the file is missing, not JSON, or not settings.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(
                f"{path} cannot be read ({error.strerror}): give a file that settings.save() wrote"
            ) from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path} is not a JSON file of settings: {error}") from error
        return cls.from_dict(data)


@dataclass(frozen=True)
class Plan:
    """`Settings` worked out for one model: what the decoder reads at every decision."""

    settings: Settings
    exit_temperatures: Mapping[int, float]
    """T_l by exit layer, shallow first: the exit layers <= max_depth that are in use."""
    threshold: float
    max_width: float
    """Tokens; infinite where there is no bound."""

    def next_exit(self, depth: int) -> int | None:
        """The first exit layer in use that is deeper than `depth`; None if there is none left."""
        return next((layer for layer in self.exit_temperatures if layer > depth), None)

    def temperature(self, layer: int) -> float | None:
        """T_l, or None if the exit at `layer` is not in use."""
        return self.exit_temperatures.get(layer)


@lru_cache(maxsize=256)
def _plan(settings: Settings, model_exit_layers: tuple[int, ...], num_layers: int) -> Plan:
    check_exit_layers(model_exit_layers, num_layers)
    used = model_exit_layers
    if settings.exit_layers is not None:
        unknown = [layer for layer in settings.exit_layers if layer not in model_exit_layers]
        if unknown:
            raise SettingsError(
                f"exit_layers={settings.exit_layers}: the model has no exit head at {_listed(unknown)}; "
                f"it has them at {_listed(model_exit_layers)}"
            )
        used = settings.exit_layers
    if isinstance(settings.schedule, PerLayerTemperature):
        unknown = [layer for layer in settings.schedule.values if layer not in model_exit_layers]
        if unknown:
            raise SettingsError(
                f"{settings.schedule!r} names {_listed(unknown)}, where the model has no exit head: "
                f"its exit layers are {_listed(model_exit_layers)}"
            )
    if settings.max_depth is not None:
        if settings.max_depth >= num_layers:
            raise SettingsError(
                f"max_depth={settings.max_depth}, but the model has {num_layers} layers: "
                f"use 1..{num_layers - 1}, or None for no bound"
            )
        if settings.max_depth < used[0]:
            raise SettingsError(
                f"max_depth={settings.max_depth} lies below the first exit layer in use, {used[0]}: nothing could ever "
                f"be drafted; use {used[0]}..{num_layers - 1}, or None for no bound"
            )
        used = tuple(layer for layer in used if layer <= settings.max_depth)
    temperatures = settings.schedule.temperatures(used, num_layers)
    width = math.inf if settings.max_width is None else settings.max_width
    return Plan(settings, temperatures, settings.threshold, width)


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; without one, decoding is greedy.

    A token is the Gumbel-max draw `argmax(process(logits) + g)` with noise g keyed by (seed, position), so a seed fixes
    the whole text, token by token, whatever the settings of the decode.

    Attributes:
        temperature: divides the logits, above 0. (Not an exit temperature: those only judge confidence.)
        top_p: keep the most likely tokens that together reach this probability, in (0, 1]; None or 1 = all.
        top_k: keep the k most likely tokens, at least 1; None = all.
        seed: a whole number, 0 or more.
    """

    temperature: float = 1.0
    top_p: float | None = None
    top_k: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        temperature = _number("temperature", self.temperature, "a number above 0")
        if not (math.isfinite(temperature) and temperature > 0):
            raise SettingsError(
                f"temperature={self.temperature!r}, but sampling needs a finite number above 0: "
                "leave sampling out for greedy decoding"
            )
        if self.top_p is not None:
            top_p = _number("top_p", self.top_p, "a number in (0, 1], or None")
            if not 0 < top_p <= 1:
                raise SettingsError(f"top_p={self.top_p!r}: use a number in (0, 1], or None to keep every token")
            object.__setattr__(self, "top_p", top_p)
        object.__setattr__(self, "top_k", _bound("top_k", self.top_k))
        if isinstance(self.seed, bool) or not hasattr(self.seed, "__index__") or not 0 <= self.seed < 2**63:
            raise SettingsError(f"seed={self.seed!r}: use a whole number in 0..2**63-1")
        object.__setattr__(self, "temperature", temperature)
        object.__setattr__(self, "seed", int(self.seed))

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def check_exit_layers(exit_layers: Any, num_layers: int | None = None) -> tuple[int, ...]:
    """`exit_layers` as a tuple, shallow first.

    Raises:
        SettingsError: none are given, one is repeated, or one lies outside 1..num_layers-1.
    """
    top = "L-1" if num_layers is None else num_layers - 1
    try:
        layers = tuple(exit_layers)
    except TypeError:
        raise SettingsError(
            f"exit_layers={exit_layers!r}: give a list of layers in 1..{top}, such as [2, 4, 6]"
        ) from None
    if not layers:
        raise SettingsError(f"exit_layers is empty: give at least one layer in 1..{top}")
    for layer in layers:
        whole = hasattr(layer, "__index__") and not isinstance(layer, bool)
        if not whole or layer < 1 or (num_layers is not None and layer >= num_layers):
            model = "" if num_layers is None else f", and the model has {num_layers} layers"
            raise SettingsError(f"exit layer {layer!r}: exit layers are whole numbers in 1..{top}{model}")
    layers = tuple(int(layer) for layer in layers)
    repeated = sorted({layer for layer in layers if layers.count(layer) > 1})
    if repeated:
        raise SettingsError(f"exit_layers={list(layers)} repeats {_listed(repeated)}: name each layer once")
    return tuple(sorted(layers))


def _number(name: str, value: Any, range_: str) -> float:
    if isinstance(value, (bool, str)) or value is None:
        raise SettingsError(f"{name}={value!r}: use {range_}")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise SettingsError(f"{name}={value!r}: use {range_}") from None
    if math.isnan(number):
        raise SettingsError(f"{name} is NaN: use {range_}")
    return number


def _bound(name: str, value: Any) -> int | None:
    """A whole number of at least 1, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise SettingsError(f"{name}={value!r}: use a whole number of at least 1, or None for no bound")
    return int(value)


def _listed(layers: Sequence[int]) -> str:
    return ", ".join(str(layer) for layer in layers)
