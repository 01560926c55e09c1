"""What a level minimises: a loss of the task and the level's regularizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from nas.errors import ConfigError, UnknownNameError
from nas.levels import Level
from nas.regularize import Regularizer, Term, penalty, regularizer
from nas.supernet import Supernet

TaskLoss = Callable[[nn.Module, Any], Tensor]
"""A loss of the task: (network or supernet, batch) to a scalar."""

Terms = dict[str, Tensor]
"""What each regularizer adds to a loss, by name."""


@dataclass(frozen=True)
class Objective:
    """A loss with its regularizers, of (batch, how far the regularizers have ramped up)."""

    model: nn.Module
    loss: TaskLoss
    terms: Mapping[Term, Regularizer]

    def __call__(self, batch: Any, ramped: float) -> tuple[Tensor, Terms]:
        model: Any = self.model
        terms = {term.name: penalty(model, {term: value}, ramped) for term, value in self.terms.items()}
        return sum(terms.values(), start=self.loss(model, batch)), terms


def objective(
    model: nn.Module,
    name: str,
    level: Level,
    losses: Mapping[str, TaskLoss],
    arguments: Mapping[str, Mapping[str, Any]],
) -> Objective:
    """What the level `name` minimises; raises `UnknownNameError` or `ConfigError` for a loss or term that cannot be."""
    if level.loss not in losses:
        raise UnknownNameError(f"loss of level '{name}'", level.loss, losses)
    if level.regularizers and not isinstance(model, Supernet):
        raise ConfigError(f"level '{name}': regularizers act on arch parameters, which only a supernet has")
    terms = {term: regularizer(term.name, **arguments.get(term.name, {})) for term in level.regularizers}
    return Objective(model, losses[level.loss], terms)
