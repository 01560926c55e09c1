"""A distribution of choices by independent logits, with the gradient of its log-probability."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import permutations
from random import Random

from nas.genotype.decision import Choice
from nas.searchers.variation import Choices, Variation

Values = dict[str, list[float]]
"""A number for each option of each decision, by label."""


class Policy:
    """Draws each decision by the softmax of its logits; in-edges one after the other, without replacement.

    Args:
        variation: of the space.
        logits: of the options of each decision; by default all 0.
    """

    def __init__(self, variation: Variation, logits: Values | None = None) -> None:
        self.variation = variation
        self.logits = logits or {label: [0.0] * len(options) for label, options in variation.options.items()}

    def draw(self, random: Random) -> Choices:
        """Draw choices."""
        taken: Choices = {}
        for label, options in self.variation.options.items():
            left = list(range(len(options)))
            order = []
            for _ in range(self._count(label)):
                order.append(random.choices(left, _softmax(self.logits[label], left))[0])
                left.remove(order[-1])
            taken[label] = self.variation.chosen(label, order)
        return self.variation.complete(taken, random)  # without those that do not exist

    def probability(self, choices: Mapping[str, Choice]) -> float:
        """Return the probability of choices."""
        return math.prod(sum(p for p, _ in self._orders(label, choice)) for label, choice in choices.items())

    def gradient(self, choices: Mapping[str, Choice]) -> Values:
        """Return the gradient of the log-probability of choices; that of decisions that do not exist is absent."""
        found: Values = {}
        for label, choice in choices.items():
            orders = list(self._orders(label, choice))
            total = sum(p for p, _ in orders)
            shares = ([p / total * each for each in gradient] for p, gradient in orders)
            found[label] = [sum(column) for column in zip(*shares, strict=True)]
        return found

    def _orders(self, label: str, choice: Choice) -> Iterator[tuple[float, list[float]]]:
        """The probability of each order in which a choice can be drawn, with the gradient of its logarithm."""
        logits, options = self.logits[label], self.variation.options[label]
        sources = choice if isinstance(choice, tuple) else (choice,)
        taken = [i for i, option in enumerate(options) if option in sources]
        if not self.variation.varies(label):
            yield 1.0, [0.0] * len(options)
            return
        for order in permutations(taken):
            left = list(range(len(options)))
            probability, gradient = 1.0, [0.0] * len(options)
            for i in order:
                shares = _softmax(logits, left)
                for j, share in zip(left, shares, strict=True):
                    gradient[j] -= share
                gradient[i] += 1.0
                probability *= shares[left.index(i)]
                left.remove(i)
            yield probability, gradient

    def _count(self, label: str) -> int:
        decision = self.variation.decisions[label]
        return decision.keep if decision.kind == "inputs" else 1


def _softmax(logits: list[float], which: Iterable[int]) -> list[float]:
    chosen = [logits[i] for i in which]
    top = max(chosen)
    powers = [math.exp(logit - top) for logit in chosen]
    total = sum(powers)
    return [power / total for power in powers]
