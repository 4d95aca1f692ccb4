"""Fitted schedules: exit temperatures that make an exit's confidence true, and the best linear alpha.

Temperature scaling (Guo et al., ICML 2017), one temperature an exit layer, by L-BFGS on a dense record. The result is
an ordinary schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from selfdraft_viz.errors import PromptError, SettingsError
from selfdraft_viz.lab.record import HIGHEST, LOWEST, NODES, DenseRecord, _to_coefficients
from selfdraft_viz.schedules import LinearAnnealing, PerLayerTemperature, Schedule

Objective: TypeAlias = Literal["token", "agreement"]
_OBJECTIVES = ("token", "agreement")
_ROOM = 1e-6  # the ends of the record's range are never quite reached


def fit_temperatures(record: DenseRecord, objective: Objective = "token") -> PerLayerTemperature:
    """For each exit the temperature with the least negative log-likelihood on `record`.

    Args:
        record: the fitting set; judge on another.
        objective: "token": of the final layer's token under softmax(z / T), over the rows whose final token the exit
            heads can draft; "agreement": of agreeing with the final layer, where the confidence is taken for its
            chance. Decoding asks the second question, temperature scaling the first.

    Returns:
        Temperatures in 0.5..4, the range of a record.

    Raises:
        SettingsError: an unknown objective, or a record without what it needs. PromptError: no rows to fit on.
    """
    losses = _losses(record, objective)
    start = torch.zeros(len(losses), dtype=torch.float64)
    fitted = _minimise(start, lambda logs: torch.stack([loss(log) for loss, log in zip(losses, logs, strict=True)]))
    temperatures = fitted.clamp(-np.log(HIGHEST), -np.log(LOWEST)).exp().tolist()
    return PerLayerTemperature(dict(zip(record.exit_layers, temperatures, strict=True)))


def fit_linear(record: DenseRecord, objective: Objective = "token") -> LinearAnnealing:
    """The linear schedule, SpecBound's, with the least negative log-likelihood over all exits together. Arguments as
    for `fit_temperatures`; alpha may come out below 0."""
    losses = _losses(record, objective)
    rise = torch.tensor([1 - layer / record.num_layers for layer in record.exit_layers], dtype=torch.float64)
    least, most = (1 / HIGHEST - 1) / float(rise.max()), (1 / LOWEST - 1) / float(rise.max())

    def alpha(place: Tensor) -> Tensor:  # any number to the strengths that keep every exit in the record's range
        return least + (most - least) * torch.sigmoid(place)

    def loss(place: Tensor) -> Tensor:
        temperatures = 1 + alpha(place) * rise
        return torch.stack([one(temperature.log()) for one, temperature in zip(losses, temperatures, strict=True)])

    none = torch.tensor([0.0 - least]) / (most - least)
    fitted = _minimise(torch.logit(none).double(), loss)
    return LinearAnnealing(float(alpha(fitted).clamp(least + _ROOM, most - _ROOM)))


def negative_log_likelihood(
    record: DenseRecord, schedule: Schedule, objective: Objective = "token"
) -> dict[int, float]:
    """By exit layer the mean negative log-likelihood in nats that the fits above minimise, for any schedule."""
    temperatures = schedule.temperatures(record.exit_layers, record.num_layers)
    losses = _losses(record, objective)
    return {
        layer: float(loss(torch.tensor(np.log(temperatures[layer]), dtype=torch.float64)))
        for layer, loss in zip(record.exit_layers, losses, strict=True)
    }


def _losses(record: DenseRecord, objective: Objective) -> list[Callable[[Tensor], Tensor]]:
    """By exit the mean negative log-likelihood as a function of log T."""
    if objective not in _OBJECTIVES:
        raise SettingsError(f"objective={objective!r}: use one of {', '.join(map(repr, _OBJECTIVES))}")
    if record.true_gaps is None and objective == "token":
        raise SettingsError("the record has no true_gaps, the logits of the final tokens: make it again with record()")
    if record.rows == 0:
        raise PromptError("the record has no rows after its prompts: nothing to fit on")
    losses = []
    for index, layer in enumerate(record.exit_layers):
        coefficients = record.log_partition[:, record.start :, index].reshape(-1, NODES) @ _to_coefficients().T
        if objective == "agreement":
            agrees = record.agrees[:, record.start :, index].ravel()
            losses.append(_agreement_loss(torch.tensor(coefficients), torch.tensor(agrees)))
            continue
        assert record.true_gaps is not None
        gaps = record.true_gaps[:, record.start :, index].ravel().astype(np.float64)
        known = np.isfinite(gaps)
        if not known.any():
            raise PromptError(f"exit {layer} can draft none of the record's final tokens: nothing to fit on")
        losses.append(_token_loss(torch.tensor(coefficients[known]), torch.tensor(gaps[known])))
    return losses


def _token_loss(coefficients: Tensor, gaps: Tensor) -> Callable[[Tensor], Tensor]:
    """-log softmax(z / T)[final token] = F(1 / T) - gap / T."""
    return lambda log_temperature: (
        _log_partition(coefficients, log_temperature) - gaps * torch.exp(-log_temperature)
    ).mean()


def _agreement_loss(coefficients: Tensor, agrees: Tensor) -> Callable[[Tensor], Tensor]:
    def loss(log_temperature: Tensor) -> Tensor:
        surprise = _log_partition(coefficients, log_temperature).clamp(min=1e-6)  # -log c
        return torch.where(agrees, surprise, -torch.log(-torch.expm1(-surprise))).mean()

    return loss


def _log_partition(coefficients: Tensor, log_temperature: Tensor) -> Tensor:
    """(rows,) F(1 / T) from (rows, NODES) Chebyshev coefficients, with a gradient to log T."""
    low, high = float(np.log(LOWEST)), float(np.log(HIGHEST))
    place = ((-log_temperature - (low + high) / 2) / ((high - low) / 2)).clamp(-1 + _ROOM, 1 - _ROOM)
    return coefficients @ torch.cos(torch.arange(NODES, dtype=torch.float64) * torch.acos(place))


def _minimise(start: Tensor, losses: Callable[[Tensor], Tensor]) -> Tensor:
    """Where the sum of `losses` is least, by L-BFGS from `start`."""
    values = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([values], max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = losses(values).sum()
        total.backward()
        return total

    optimizer.step(closure)
    return values.detach()
