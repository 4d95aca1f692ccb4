"""Options that several commands have, and what they mean."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfdraft_viz.errors import SettingsError
from selfdraft_viz.schedules import KINDS, LinearAnnealing, NoAnnealing, PerLayerTemperature, Schedule
from selfdraft_viz.settings import NEVER, Settings

if TYPE_CHECKING:
    from selfdraft_viz.model import Model

_MODEL, _SETTINGS = "Model", "Settings of self-draft decoding"

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="Folder or hub id of a causal LM; default: the embedded model.", rich_help_panel=_MODEL
    ),
]
RevisionOption = Annotated[str | None, typer.Option(help="Revision on the hub.", rich_help_panel=_MODEL)]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ... or auto.", rich_help_panel=_MODEL)]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        help="float32, bfloat16, float16 or float64; default: float32 on a CPU, bfloat16 on a GPU.",
        rich_help_panel=_MODEL,
    ),
]
HeadsOption = Annotated[
    str | None,
    typer.Option(
        help="'logit lens', or a file, folder or hub id of trained exit heads; default: those beside the model.",
        rich_help_panel=_MODEL,
    ),
]
ExitLayersOption = Annotated[
    str | None, typer.Option(help="Layers with an exit, such as 2,4,6.", rich_help_panel=_MODEL)
]
SettingsOption = Annotated[
    Path | None,
    typer.Option("--settings", help="JSON file of settings; default: the model's preset.", rich_help_panel=_SETTINGS),
]
ThresholdOption = Annotated[
    str | None,
    typer.Option(help="Confidence from which a token exits, 0..1, or 'never'.", rich_help_panel=_SETTINGS),
]
ScheduleOption = Annotated[
    str | None,
    typer.Option(
        help="Exit temperatures: none, constant:1.5, linear:1.0, cosine:1.0, exponential:1.0,3.0 "
        "or per-layer:2=1.8,4=1.5.",
        rich_help_panel=_SETTINGS,
    ),
]
AlphaOption = Annotated[
    float | None,
    typer.Option(help="Annealing strength of the schedule in use (linear if none is).", rich_help_panel=_SETTINGS),
]
MaxDepthOption = Annotated[
    str | None, typer.Option(help="Deepest exit layer tried, or 'none'.", rich_help_panel=_SETTINGS)
]
MaxWidthOption = Annotated[
    str | None, typer.Option(help="Most tokens drafted in a round, or 'none'.", rich_help_panel=_SETTINGS)
]


def load_model(
    model: str | None,
    *,
    device: str,
    dtype: str | None,
    heads: str | None = None,
    exit_layers: str | None = None,
    revision: str | None = None,
    kernels: str = "auto",
) -> Model:
    """`selfdraft_viz.load` for options as typed, without the loading bars and notes of transformers."""
    layers = None if exit_layers is None else whole_numbers("--exit-layers", exit_layers)
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    from selfdraft_viz.model import load

    return load(model, device=device, dtype=dtype, heads=heads, exit_layers=layers, revision=revision, kernels=kernels)


def chosen_settings(
    preset: Settings,
    file: Path | None,
    *,
    threshold: str | None,
    schedule: str | None,
    alpha: float | None,
    max_depth: str | None,
    max_width: str | None,
    exit_layers: str | None,
) -> Settings:
    """The settings of a file, or else the preset, with what was typed put in place; exit layers that were typed for the
    model are all tried.

    Raises:
        SettingsError: a value cannot be read, or is out of range.
    """
    settings = preset if file is None else Settings.load(file)
    changes: dict[str, Any] = {}
    if exit_layers is not None and file is None:
        changes["exit_layers"] = None
    if threshold is not None:
        changes["threshold"] = NEVER if threshold == "never" else number("--threshold", threshold)
    for name, typed in (("max_depth", max_depth), ("max_width", max_width)):
        if typed is not None:
            changes[name] = None if typed == "none" else whole_number(f"--{name.replace('_', '-')}", typed)
    if schedule is not None:
        changes["schedule"] = read_schedule(schedule)
    if alpha is not None:
        changes["schedule"] = with_alpha(changes.get("schedule", settings.schedule), alpha, typed=schedule is not None)
    return settings.replace(**changes)


def read_schedule(typed: str) -> Schedule:
    """A schedule as typed: its kind, then a colon and its values, such as `exponential:1.0,3.0` or `per-layer:2=1.8`.

    Raises:
        SettingsError: the kind or a value is unknown or out of range.
    """
    kind, _, values = typed.partition(":")
    cls = KINDS.get(kind.replace("-", " "))
    if cls is None:
        raise SettingsError(f"--schedule {typed!r}: use one of {', '.join(name.replace(' ', '-') for name in KINDS)}")
    parts = [part.strip() for part in values.split(",")] if values else []
    if cls is PerLayerTemperature:
        pairs = [part.partition("=") for part in parts]
        layers = {whole_number("--schedule", layer): number("--schedule", value) for layer, _, value in pairs}
        return PerLayerTemperature(layers)
    names = [field.name for field in dataclasses.fields(cls)]
    if len(parts) > len(names):
        raise SettingsError(f"--schedule {typed!r}: {kind} takes {', '.join(names) or 'no values'}")
    return cls(**{name: number("--schedule", part) for name, part in zip(names, parts, strict=False)})


def with_alpha(schedule: Schedule, alpha: float, typed: bool) -> Schedule:
    """`schedule` with another annealing strength; one without a strength gives way to the linear one unless typed."""
    if any(field.name == "alpha" for field in dataclasses.fields(schedule)):
        return dataclasses.replace(schedule, alpha=alpha)  # type: ignore[call-arg]
    if typed and not isinstance(schedule, NoAnnealing):
        raise SettingsError(f"--alpha {alpha}: {schedule!r} has no annealing strength; leave one of the two out")
    return LinearAnnealing(alpha)


def whole_numbers(option: str, typed: str) -> list[int]:
    return [whole_number(option, part) for part in typed.split(",")]


def whole_number(option: str, typed: str) -> int:
    try:
        return int(typed)
    except ValueError:
        raise SettingsError(f"{option} {typed!r}: {typed!r} is not a whole number") from None


def number(option: str, typed: str) -> float:
    try:
        return float(typed)
    except ValueError:
        raise SettingsError(f"{option} {typed!r}: {typed!r} is not a number") from None
