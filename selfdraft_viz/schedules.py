"""Annealing schedules: how hot each exit layer's softmax is when its confidence is judged.

A schedule gives every exit layer l an *exit temperature* T_l > 0; the confidence there is `max softmax(z / T_l)`.
A temperature above 1 lowers a confidence, below 1 raises it, and none ever changes the drafted token. SpecBound
(arXiv 2604.12247) uses the linear one, `T_l = 1 + alpha * (1 - l / L)`: hot in the shallow layers, 1 at the top.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from selfdraft_viz.errors import SettingsError


@dataclass(frozen=True, eq=False)  # or two of a subclass that is no dataclass would be equal whatever they hold
class Schedule:
    """Base class. A schedule of your own needs one method: `temperature(layer, num_layers)`. It must not change while
    in use; make it a frozen dataclass if two of equal values are to count as equal."""

    kind: ClassVar[str] = ""

    def temperature(self, layer: int, num_layers: int) -> float:
        """The exit temperature T_l after `layer` of `num_layers` layers."""
        raise NotImplementedError(f"{type(self).__name__} must define temperature(layer, num_layers)")

    def temperatures(self, exit_layers: Iterable[int], num_layers: int) -> dict[int, float]:
        """Exit temperatures for `exit_layers` (each in 1..num_layers-1): `{layer: T_l}`.

        Raises:
            SettingsError: a temperature is not a positive finite number.
        """
        return {layer: check_temperature(self.temperature(layer, num_layers), layer) for layer in exit_layers}

    def to_dict(self) -> dict[str, Any]:
        """The schedule as plain JSON data, with its `kind`."""
        if not self.kind:
            raise SettingsError(
                f"the schedule {self!r} has no `kind`, so it cannot be saved: "
                "turn it into a PerLayerTemperature of its temperatures first"
            )
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"kind": self.kind, **values}


@dataclass(frozen=True)
class NoAnnealing(Schedule):
    """T_l = 1 everywhere: confidences as the heads give them."""

    kind: ClassVar[str] = "none"

    def temperature(self, layer: int, num_layers: int) -> float:
        return 1.0


@dataclass(frozen=True)
class ConstantTemperature(Schedule):
    """T_l = value everywhere."""

    value: float = 1.5
    kind: ClassVar[str] = "constant"

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", check_temperature(self.value))

    def temperature(self, layer: int, num_layers: int) -> float:
        return self.value


@dataclass(frozen=True)
class LinearAnnealing(Schedule):
    """T_l = 1 + alpha * (1 - l / L), the schedule of SpecBound (arXiv 2604.12247).

    `alpha`, the annealing strength, is at least 0 in the paper. Values in (-1, 0) are allowed too: they *raise* shallow
    confidences, which is what under-confident heads need.
    """

    alpha: float = 1.0
    kind: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", _check_alpha(self.alpha))

    def temperature(self, layer: int, num_layers: int) -> float:
        return 1.0 + self.alpha * (1.0 - layer / num_layers)


@dataclass(frozen=True)
class CosineAnnealing(Schedule):
    """T_l = 1 + alpha * (1 + cos(pi * l / L)) / 2: stays hot longer, then falls off quickly."""

    alpha: float = 1.0
    kind: ClassVar[str] = "cosine"

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", _check_alpha(self.alpha))

    def temperature(self, layer: int, num_layers: int) -> float:
        return 1.0 + self.alpha * (1.0 + math.cos(math.pi * layer / num_layers)) / 2.0


@dataclass(frozen=True)
class ExponentialAnnealing(Schedule):
    """T_l = 1 + alpha * (exp(-rate * l / L) - exp(-rate)) / (1 - exp(-rate)): cools quickly in the first layers.

    `rate` > 0; as it goes to 0 the curve becomes the linear one. T is 1 + alpha at depth 0 and 1 at depth L.
    """

    alpha: float = 1.0
    rate: float = 3.0
    kind: ClassVar[str] = "exponential"

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", _check_alpha(self.alpha))
        if not (_is_number(self.rate) and 0 < self.rate <= 100):
            raise SettingsError(f"rate={self.rate!r}, but an exponential schedule needs 0 < rate <= 100: try 3.0")
        object.__setattr__(self, "rate", float(self.rate))

    def temperature(self, layer: int, num_layers: int) -> float:
        floor = math.expm1(-self.rate)  # not exp(), which cannot tell a small rate from 0
        return 1.0 + self.alpha * ((floor - math.expm1(-self.rate * (layer / num_layers))) / floor)


@dataclass(frozen=True)
class PerLayerTemperature(Schedule):
    """A temperature of its own for each exit layer: `PerLayerTemperature({2: 1.8, 4: 1.5})`."""

    values: Mapping[int, float] = dataclasses.field(default_factory=dict)
    kind: ClassVar[str] = "per layer"

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping) or not self.values:
            raise SettingsError(
                f"PerLayerTemperature got {self.values!r}: give it a dict of exit layer to temperature, "
                "such as {2: 1.8, 4: 1.5}"
            )
        checked: dict[int, float] = {}
        for name, value in self.values.items():
            layer = _as_layer(name)
            if layer in checked:
                raise SettingsError(
                    f"PerLayerTemperature names exit layer {layer} twice: give one temperature for each"
                )
            checked[layer] = check_temperature(value, layer)
        object.__setattr__(self, "values", MappingProxyType(dict(sorted(checked.items()))))

    def __hash__(self) -> int:
        return hash(tuple(self.values.items()))

    def __repr__(self) -> str:
        return f"PerLayerTemperature({dict(self.values)!r})"

    def __reduce__(self) -> tuple[Any, ...]:  # a mapping proxy cannot be pickled
        return (PerLayerTemperature, (dict(self.values),))

    def temperature(self, layer: int, num_layers: int) -> float:
        if layer not in self.values:
            raise SettingsError(
                f"exit layer {layer} has no temperature in {self!r}: give one for every exit layer that is in use"
            )
        return self.values[layer]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "values": {str(layer): value for layer, value in self.values.items()}}


KINDS: dict[str, type[Schedule]] = {
    cls.kind: cls
    for cls in (
        NoAnnealing,
        ConstantTemperature,
        LinearAnnealing,
        CosineAnnealing,
        ExponentialAnnealing,
        PerLayerTemperature,
    )
}


def schedule_from_dict(data: Mapping[str, Any]) -> Schedule:
    """The inverse of `Schedule.to_dict`.

    Raises:
        SettingsError: the kind is unknown, or its values are missing, unknown or out of range.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("kind"), str) or data["kind"] not in KINDS:
        raise SettingsError(f"unknown schedule {data!r}: `kind` is one of {', '.join(map(repr, KINDS))}")
    values = {name: value for name, value in data.items() if name != "kind"}
    try:
        return KINDS[data["kind"]](**values)
    except TypeError as error:
        raise SettingsError(f"the schedule {dict(data)!r} cannot be read: {error}") from error


def check_temperature(value: Any, layer: int | None = None) -> float:
    """`value` as a float if it is a usable exit temperature.

    Raises:
        SettingsError: it is not a finite number above 0.
    """
    if not (_is_number(value) and math.isfinite(value) and value > 0):
        where = "" if layer is None else f" for exit layer {layer}"
        raise SettingsError(
            f"exit temperature {value!r}{where}: it must be a finite number above 0 "
            "(1 leaves confidences as they are, 2 is already strong)"
        )
    return float(value)


def _check_alpha(alpha: Any) -> float:
    if not (_is_number(alpha) and math.isfinite(alpha) and alpha > -1):
        raise SettingsError(
            f"alpha={alpha!r}, but the annealing strength must be a finite number above -1: "
            "0 is no annealing, 1 doubles the temperature at depth 0"
        )
    return float(alpha)


def _as_layer(layer: Any) -> int:
    try:
        if float(layer) == int(layer) and not isinstance(layer, bool):
            return int(layer)
    except (TypeError, ValueError, OverflowError):
        pass
    raise SettingsError(f"exit layer {layer!r} in PerLayerTemperature: layers are whole numbers, counted from 1")


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)  # numpy's numbers too
