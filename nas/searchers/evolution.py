"""The searcher `evolution`: regularized evolution, in which the oldest of a population dies."""

from __future__ import annotations

from random import Random

from nas.registry import Count
from nas.searchers.searcher import Searcher
from nas.searchers.variation import Choices
from nas.space.definition import Description


class Evolution(Searcher):
    """Mutates the best of a random sample of the population; each new member replaces the oldest one.

    The first `population` genotypes are drawn. The sample is drawn with replacement.

    Args:
        description: the decisions of the space.
        population: the number of genotypes kept.
        sample: how many of them compete to be the parent.
        seed: of the course.

    References:
        Real et al., "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019, algorithm 1, with
        `population=100, sample=25`. Dong and Yang, "NAS-Bench-201", ICLR 2020, use `population=10, sample=10`, the
        defaults here.
    """

    settings = ("population", "sample")
    state = ("members",)

    def __init__(self, description: Description, *, population: Count = 10, sample: Count = 10, seed: int = 0) -> None:
        super().__init__(description, seed=seed)
        self.population, self.sample = population, sample
        self.members: list[tuple[Choices, float]] = []
        """The population with its scores, the oldest first."""

    def propose(self, random: Random) -> Choices:
        if self.asked < self.population or not self.members:
            return self.variation.draw(random)
        competing = random.choices(self.members, k=self.sample)
        parent = max(competing, key=lambda member: member[1])
        return self.variation.mutate(parent[0], random)

    def learn(self, choices: Choices, score: float) -> None:
        self.members.append((choices, score))
        del self.members[: -self.population]
