"""All genotypes that are best at their cost: no other one has a larger sum of log weights and costs no more.

The cost is a sum of shares of few decisions each, and so is the sum of log weights. Decisions are eliminated one after
the other. For every way to choose the decisions that share a term with the eliminated ones, the best choices of these
are kept, one for each cost. This is exact, whatever couples decisions: in-edges of a node, decisions inside candidates,
pairs of widths, one label at several places. Its effort grows with the number of different costs, and with the
candidates of decisions that are coupled.

References:
    Bertelè and Brioschi, Nonserial Dynamic Programming, 1972.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nas.derive.candidates import allowed, positions, strengths
from nas.genotype.decision import Choice, Decision, Share

TINY = float(np.finfo(np.float64).tiny)
"""A mixing weight of 0 counts as this one, so that its logarithm is finite."""
PAIRS = 1 << 22
"""How many sums are held in memory at once."""


class Tradeoff(NamedTuple):
    """A genotype that is best at its cost."""

    choices: dict[str, Choice]
    score: float
    """The sum of the logarithms of the mixing weights of its choices, and of the factors of its in-edges, if any."""
    cost: float


class _Front(NamedTuple):
    """Choices of some decisions, by ascending cost and score."""

    costs: NDArray[np.float64]
    scores: NDArray[np.float64]
    taken: NDArray[np.int16]
    """The option that each decision took, `(points, decisions)`; -1 for those that are not eliminated yet."""


Options = Sequence[Choice | None]
"""What a decision can take; None if it does not exist."""


class _Factor(NamedTuple):
    """What the choices of some decisions are worth, and of those that were eliminated."""

    labels: tuple[str, ...]
    fronts: dict[tuple[int, ...], _Front]
    """By the options that these decisions took; absent if they cannot be taken together."""

    @property
    def least(self) -> float:
        return min((front.costs[0] for front in self.fronts.values()), default=math.inf)


def best_at_each_cost(
    decisions: Mapping[str, Decision],
    weights: Mapping[str, Tensor],
    shares: Sequence[Share],
    most: float = math.inf,
) -> list[Tradeoff]:
    """Return the genotypes that are best at their cost, from the cheapest to the one with the largest score.

    A node that selects its in-edges derives no `none` on them, as under `strongest`.

    Args:
        decisions: the decisions of a space, by label.
        weights: the mixing weights `(candidates,)` of the decisions to score, and the factors of in-edges
            `(sources,)`; those of others count nothing.
        shares: whose sum is the cost of a genotype.
        most: the largest cost.

    Returns:
        No two of equal cost or equal score; empty if all genotypes cost more than `most`.

    Raises:
        DivergedError: a mixing weight is not finite.
    """
    options = _options(decisions)
    values = strengths(decisions, weights) if weights else {}
    for label in [label for label in values if decisions[label].kind == "inputs"]:
        values[label] = weights[label].double().tolist() if label in weights else [1.0] * len(values[label])
    factors = _factors(decisions, values, shares, options)
    columns = {label: place for place, label in enumerate(decisions)}
    while waiting := {label for factor in factors for label in factor.labels}:
        scopes = {label: _scope(label, factors) for label in decisions if label in waiting}
        label = min(scopes, key=lambda each: math.prod(len(options[other]) for other in scopes[each]))
        joined = [factor for factor in factors if label in factor.labels]
        factors = [factor for factor in factors if label not in factor.labels]
        limit = most - sum(factor.least for factor in factors)
        fronts: dict[tuple[int, ...], _Front] = {}
        for key in itertools.product(*(range(len(options[other])) for other in scopes[label])):
            given, found = dict(zip(scopes[label], key, strict=True)), []
            for option in range(len(options[label])):
                given[label] = option
                parts = [factor.fronts.get(tuple(given[each] for each in factor.labels)) for factor in joined]
                front = _sum([part for part in parts if part is not None], limit) if None not in parts else None
                if front is not None:
                    front.taken[:, columns[label]] = option
                    found.append(front)
            if found:
                fronts[key] = _best(*map(np.concatenate, zip(*found, strict=True)))
        factors.append(_Factor(scopes[label], fronts))
    parts = [factor.fronts.get(()) for factor in factors]
    front = _sum([part for part in parts if part is not None], most) if None not in parts else None
    if front is None:
        return []
    found_choices = [
        {label: choice for label, i in zip(decisions, row, strict=True) if (choice := options[label][i]) is not None}
        for row in front.taken.tolist()
    ]
    rows = zip(found_choices, front.scores.tolist(), front.costs.tolist(), strict=True)
    return [Tradeoff(choices, score, cost) for choices, score, cost in rows]


def _options(decisions: Mapping[str, Decision]) -> dict[str, Options]:
    found: dict[str, Options] = {}
    for label, own in allowed(decisions).items():
        decision = decisions[label]
        choices: list[Choice | None] = [decision.candidates[i] for i in positions(decision, own)]
        if decision.kind == "inputs":
            choices = [*itertools.combinations(sorted(map(int, decision.candidates)), decision.keep)]
        found[label] = [*choices, None] if decision.conditions else choices
    return found


def _factors(
    decisions: Mapping[str, Decision],
    values: Mapping[str, Sequence[float]],
    shares: Sequence[Share],
    options: Mapping[str, Options],
) -> list[_Factor]:
    """Whether each decision exists, with its score; and each share of the cost."""

    def point(cost: float, score: float) -> _Front:
        return _Front(np.array([cost]), np.array([score]), np.full((1, len(decisions)), -1, np.int16))

    found = []
    for label, decision in decisions.items():
        labels = (label, *dict.fromkeys(parent for parent, _ in decision.conditions))
        fronts = {}
        for key, choices in _ways(labels, options):
            if (label in choices) == decision.active(choices):
                chosen = choices.get(label, ())
                taken = chosen if isinstance(chosen, tuple) else (chosen,)
                own = dict(zip(decision.candidates, values.get(label, ()), strict=False))
                fronts[key] = point(0.0, sum(math.log(max(own.get(each, 1.0), TINY)) for each in taken))
        found.append(_Factor(labels, fronts))
    for share in shares:
        fronts = {key: point(share.of(choices), 0.0) for key, choices in _ways(share.labels, options)}
        found.append(_Factor(share.labels, fronts))
    return found


def _ways(labels: Sequence[str], options: Mapping[str, Options]) -> list[tuple[tuple[int, ...], dict[str, Choice]]]:
    """Every way to take options of some decisions, with the choices of those that exist."""
    found = []
    for key in itertools.product(*(range(len(options[label])) for label in labels)):
        taken = {label: options[label][i] for label, i in zip(labels, key, strict=True)}
        found.append((key, {label: choice for label, choice in taken.items() if choice is not None}))
    return found


def _scope(label: str, factors: Sequence[_Factor]) -> tuple[str, ...]:
    """The other decisions that share a factor with this one."""
    near = dict.fromkeys(other for factor in factors if label in factor.labels for other in factor.labels)
    return tuple(other for other in near if other != label)


def _sum(parts: Sequence[_Front], limit: float) -> _Front | None:
    """The best choices of independent parts together that cost at most `limit`; None if there are none."""
    total, *rest = sorted(parts, key=lambda part: len(part.costs))
    least = sum(part.costs[0] for part in rest)
    total = _cut(_Front(total.costs, total.scores, total.taken.copy()), limit - least)
    for part in rest:
        least -= part.costs[0]
        rows = max(1, PAIRS // len(part.costs))
        blocks = [_cut(_pairs(total, i, i + rows, part), limit - least) for i in range(0, len(total.costs), rows)]
        if not blocks:
            return None
        total = _best(*map(np.concatenate, zip(*blocks, strict=True)))
    return total if len(total.costs) else None


def _pairs(a: _Front, start: int, end: int, b: _Front) -> _Front:
    """The best sums of some points of one front with all of another."""
    costs = np.add.outer(a.costs[start:end], b.costs).ravel()
    scores = np.add.outer(a.scores[start:end], b.scores).ravel()
    kept = _order(costs, scores)
    i, j = np.divmod(kept, len(b.costs))
    return _Front(costs[kept], scores[kept], np.maximum(a.taken[start + i], b.taken[j]))


def _best(costs: NDArray[np.float64], scores: NDArray[np.float64], taken: NDArray[np.int16]) -> _Front:
    kept = _order(costs, scores)
    return _Front(costs[kept], scores[kept], taken[kept])


def _order(costs: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """The points that no other one beats, by ascending cost and score; of equal ones the first."""
    order = np.lexsort((-scores, costs))
    ranked = scores[order]
    before = np.concatenate(([-np.inf], np.maximum.accumulate(ranked)[:-1])) if len(ranked) else ranked
    return order[ranked > before]


def _cut(front: _Front, limit: float) -> _Front:
    """The points that cost at most `limit`."""
    count = int(np.searchsorted(front.costs, limit, side="right"))
    return _Front(front.costs[:count], front.scores[:count], front.taken[:count])
