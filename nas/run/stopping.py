"""Stopping rules: when a search ends before its last step, and which genotype it returns then.

A rule is a function of the epochs so far, without memory of its own. They are read from the run folder, so that a run
that is killed and resumed stops where the uninterrupted one does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from nas.declarations import Declaration, Part, declaration_of
from nas.errors import ConfigError
from nas.genotype.file import Genotype
from nas.registry import entry_name, kind
from nas.run.collapse import COLLAPSE
from nas.run.folder import read_records
from nas.run.observer import observed
from nas.space.definition import Description

STOPPING = "stopping"
"""The kind of the record of a stop by a rule: `rule`, `reason`, `genotype` (the step whose genotype is returned) and
`steps` (those of the whole search)."""

RULE = "stopping rule"
"""The kind in the registry."""

DEFAULT = Declaration(reads=frozenset({"mixing weights"}), writes=frozenset({"stopping"}))
"""What a rule declares that has no declaration of its own."""


@dataclass(frozen=True)
class Epoch:
    """What a search recorded at the end of an epoch."""

    step: int
    genotype: Genotype
    weights: Mapping[str, Sequence[float | None]]
    """The mixing weights by label, in the order of the candidates; None for one that is not finite."""
    indicators: Mapping[str, float | None]
    """The collapse indicators by name (see `nas.run.collapse`); None for one that is not finite."""


class Stop(NamedTuple):
    """What a rule says to end a search."""

    reason: str
    """Why, in words: it follows the name of the rule."""
    step: int
    """The step of the epoch whose genotype the search returns."""


class StoppingRule(Protocol):
    """Register a class whose instances are called at the end of each epoch as a `stopping rule`.

    Its arguments come from the configuration. It may also take `description`, that of the space, and `epochs`, the
    number of epochs of the search. It should raise `ConfigError` if it cannot stop this search.

    Example:
        >>> @nas.register("stopping rule", "wide_margins")
        ... class WideMargins:
        ...     def __init__(self, least: float = 0.2):
        ...         self.least = least
        ...     def __call__(self, epochs):
        ...         now = epochs[-1]
        ...         if now.indicators["least_margin"] > self.least:
        ...             return Stop(f"every margin is above {self.least}", now.step)
        ...         return None
    """

    def __call__(self, epochs: Sequence[Epoch], /) -> Stop | None:
        """Return whether to stop after the last of these epochs; there is at least one."""


def create_rule(entry: str | Mapping[str, Any], description: Description, epochs: int) -> StoppingRule:
    """Create the rule of `search.stopping`; raises `UnknownNameError` and `ConfigError`."""
    made = kind(RULE).create(entry, "search.stopping", description=description, epochs=epochs)
    if not callable(made):
        raise ConfigError(f"search.stopping: '{entry_name(entry)}' must make a function of epochs, got {made!r}")
    rule: StoppingRule = made
    return rule


def part_of(entry: str | Mapping[str, Any], rule: StoppingRule) -> Part:
    """The rule of `search.stopping`, for the check that it fits the other parts."""
    return Part(f"stopping rule '{entry_name(entry)}'", declaration_of(rule, DEFAULT))


def told(record: Mapping[str, Any]) -> str:
    """Return the record of a stop as a sentence."""
    step, genotype = record["step"], record["genotype"]
    source = "" if genotype == step else f"; the genotype is that of step {genotype}"
    return f"stopped after step {step} of {record['steps']} by {record['rule']}: {record['reason']}{source}"


def require_epochs(earliest: int, epochs: int) -> None:
    """Raise `ConfigError` if a rule that can stop at epoch `earliest`, counted from 1, outlasts the search."""
    if earliest > epochs:
        raise ConfigError(
            f"search.stopping: the earliest possible stop, epoch {earliest}, must be within search.epochs, got {epochs}"
        )


def read_epochs(folder: str | Path, genotypes: Mapping[int, Genotype]) -> list[Epoch]:
    """Return what a search recorded at its epochs, in order; `genotypes` are those it derived, by step."""
    records = read_records(folder)
    weights = {record["step"]: record["weights"] for record in records if record["kind"] == "mixing"}
    indicators = {record["step"]: record for record in observed(records, COLLAPSE)}
    return [Epoch(step, genotypes[step], weights[step], indicators[step]) for step in sorted(indicators)]
