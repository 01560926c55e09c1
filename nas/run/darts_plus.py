"""The stopping rules of DARTS+ (Liang et al., 2019): skip connections, or a stable ranking of the candidates."""

from __future__ import annotations

from collections.abc import Sequence

from nas.cost.space_cost import costs
from nas.errors import ConfigError, UnknownNameError
from nas.registry import Count
from nas.run.collapse import SkipPlaces, skip_places
from nas.run.stopping import Epoch, Stop, require_epochs
from nas.space.definition import Description


class DartsPlus:
    """Stops if the derived genotype has `skips` or more skip connections in a cell (criterion 1).

    A skip connection does not count while it ties with another candidate, as before the first step of the logits.

    Args:
        description: of the space.
        skips: the number at which to stop.
        cell: the label of the cell.

    Raises:
        UnknownNameError: the space has no such cell with a choice between a skip connection and another operation.

    References:
        Liang et al., DARTS+: Improved Differentiable Architecture Search with Early Stopping, 2019, arXiv:1909.06035,
        sec. 3.2.
    """

    def __init__(self, description: Description, *, skips: Count = 2, cell: str = "normal") -> None:
        places = skip_places(description)
        if cell not in places:
            hint = "cells with a choice between a skip connection and another operation count"
            raise UnknownNameError("cell", cell, places, hint, "search.stopping.cell")
        self._places: SkipPlaces = places[cell]
        if skips > (most := len(self._places.labels)):
            raise ConfigError(f"search.stopping.skips must be at most {most}, the edges of cell '{cell}', got {skips}")
        self._skips, self._cell = skips, cell

    def __call__(self, epochs: Sequence[Epoch], /) -> Stop | None:
        genotype = epochs[-1].genotype
        margins = genotype.provenance.margins if genotype.provenance else {}
        tied = {label for label, margin in margins.items() if not margin > 0}
        count = len(self._places.skipped(genotype.choices) - tied)
        if count < self._skips:
            return None
        return Stop(f"cell '{self._cell}' has {count} skip connections, the limit is {self._skips}", epochs[-1].step)


class StableRanking:
    """Stops if no ranking of learnable candidates has changed for some epochs (criterion 1*).

    A candidate is learnable if it has parameters. Each decision ranks its learnable candidates by mixing weight. A
    decision whose mixing weights are all equal has no ranking yet, and the search continues.

    Args:
        description: of the space.
        epochs: of the search.
        stable_for: the number of epochs.

    Raises:
        ConfigError: no decision has two learnable candidates, or the search is too short.

    References:
        Liang et al., DARTS+, 2019, arXiv:1909.06035, sec. 3.2; 10 epochs in its experiments.
    """

    def __init__(self, description: Description, epochs: int, *, stable_for: Count = 10) -> None:
        learnable = {
            label: [position for position, price in enumerate(prices) if price > 0]
            for label, prices in costs(description).candidates.items()
        }
        self._learnable = {label: positions for label, positions in learnable.items() if len(positions) > 1}
        if not self._learnable:
            expected = "a decision with two candidates that have parameters"
            raise ConfigError(f"search.stopping: the space must have {expected}, got none")
        require_epochs(stable_for + 1, epochs)
        self._stable_for = stable_for

    def __call__(self, epochs: Sequence[Epoch], /) -> Stop | None:
        rankings = [self._ranking(epoch) for epoch in epochs[-self._stable_for - 1 :]]
        if len(rankings) <= self._stable_for or rankings[-1] is None or any(r != rankings[-1] for r in rankings):
            return None
        reason = f"the ranking of the candidates has not changed for {self._stable_for} epochs"
        return Stop(reason, epochs[-1].step)

    def _ranking(self, epoch: Epoch) -> dict[str, list[int]] | None:
        """The learnable candidates of each decision, the strongest first; None if a decision has no ranking."""
        ranking = {}
        for label, positions in self._learnable.items():
            weights = epoch.weights[label]
            values = {position: weights[position] for position in positions}
            if None in values.values() or len(set(weights)) == 1:
                return None
            ranking[label] = sorted(values, key=lambda position: -(values[position] or 0.0))
        return ranking
