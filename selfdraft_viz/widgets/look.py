"""What every exit, and the last layer, would say at one position: computed for the asking, not while decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfdraft_viz.events import TokenGuess
from selfdraft_viz.schedules import PerLayerTemperature
from selfdraft_viz.settings import Settings

if TYPE_CHECKING:
    from selfdraft_viz.model import Model


_ROWS = 1024  # long texts pass in pieces, which bounds the size of the mask


@dataclass(frozen=True)
class Look:
    """One exit at one position, or the last layer.

    Attributes:
        layer: layers run; L for the model's own output.
        confidence: max softmax(z / T); plain max softmax at the last layer.
        unannealed_confidence: max softmax(z).
        exit_temperature: T; None at the last layer, and where the schedule names none.
        top_tokens: the likeliest, with their un-annealed probabilities.
    """

    layer: int
    confidence: float
    unannealed_confidence: float
    exit_temperature: float | None
    top_tokens: tuple[TokenGuess, ...]


def look(model: Model, token_ids: Sequence[int], settings: Settings, count: int = 5) -> list[Look]:
    """What the exits say about the token after `token_ids`, shallow first, and the last layer.

    The row is computed in another batch than while decoding, so its last bits can differ.

    Args:
        token_ids: everything before the token in question, prompt included; at least one.
        settings: for their schedule.
        count: how many of the likeliest tokens.
    """
    import torch

    schedule = settings.schedule
    known = model.exit_layers
    if isinstance(schedule, PerLayerTemperature):
        known = tuple(layer for layer in known if layer in schedule.values)
    temperatures = schedule.temperatures(known, model.num_layers)
    staircase = model.layered.open(len(token_ids))
    for start in range(0, len(token_ids), _ROWS):
        if start:
            staircase.advance(model.num_layers)
        staircase.push(list(token_ids[start : start + _ROWS]))
    looks = []
    row = len(token_ids) - 1
    with torch.inference_mode():
        for layer in (*model.exit_layers, model.num_layers):
            staircase.advance(layer)
            if layer == model.num_layers:
                logits = staircase.logits(row, row + 1)[0]
            else:
                logits = model.heads.logits(model.layered, layer, staircase.hidden_states(row, row + 1))[0]
            wide = logits.double()
            temperature = temperatures.get(layer)
            plain = wide.softmax(dim=-1)
            probabilities, ids = plain.topk(min(count, len(plain)))
            annealed = plain if temperature is None else (wide / temperature).softmax(dim=-1)
            names = [int(i) if layer == model.num_layers else model.heads.token_id(int(i)) for i in ids]
            guesses = zip(names, probabilities.tolist(), strict=True)
            looks.append(
                Look(
                    layer=layer,
                    confidence=float(annealed.max()),
                    unannealed_confidence=float(probabilities[0]),
                    exit_temperature=temperature,
                    top_tokens=tuple(TokenGuess(token_id, probability) for token_id, probability in guesses),
                )
            )
    return looks
