"""The searcher `one_shot_evolution`: a genetic search whose scores come from one trained supernet."""

from __future__ import annotations

from random import Random
from typing import Annotated

import msgspec

from nas.errors import ConfigError
from nas.registry import Count
from nas.searchers.searcher import Searcher
from nas.searchers.variation import Choices
from nas.space.definition import Description

TRIES = 10
"""Draws of a proposal until it is a new one."""


class OneShotEvolution(Searcher):
    """In each generation mutates and crosses the best genotypes of all before; proposes nothing twice, if it can.

    The first generation is drawn. Each later one has `mutations` mutated genotypes, `crossings` crossed ones, and drawn
    ones up to `population`. Its parents are the `parents` best ones when it begins.

    Args:
        description: the decisions of the space.
        population: the number of genotypes of a generation.
        parents: the number of best genotypes that are mutated and crossed.
        mutations: mutated genotypes of a generation.
        crossings: crossed genotypes of a generation.
        probability: of each decision to be drawn again in a mutation.
        seed: of the course.

    Raises:
        ConfigError: a generation would have more than `population` genotypes.

    References:
        Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020, algorithm 1,
        with the numbers of section 4.1.
    """

    default_score = "one_shot"
    settings = ("population", "parents", "mutations", "crossings", "probability")
    state = ("best", "chosen", "known")

    def __init__(
        self,
        description: Description,
        *,
        population: Count = 50,
        parents: Count = 10,
        mutations: Annotated[int, msgspec.Meta(ge=0)] = 25,
        crossings: Annotated[int, msgspec.Meta(ge=0)] = 25,
        probability: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__(description, seed=seed)
        if mutations + crossings > population:
            raise ConfigError(
                f"mutations and crossings must be at most population={population}, got {mutations + crossings}"
            )
        self.population, self.parents = population, parents
        self.mutations, self.crossings, self.probability = mutations, crossings, probability
        self.best: list[tuple[Choices, float]] = []
        """The best genotypes so far, the first one best."""
        self.chosen: list[Choices] = []
        """The parents of this generation."""
        self.known: list[Choices] = []
        """All proposals."""

    def propose(self, random: Random) -> Choices:
        place = self.asked % self.population
        if place == 0:
            self.chosen = [choices for choices, _ in self.best]
        for _ in range(TRIES):
            proposed = self._made(place, random)
            if proposed not in self.known:
                break
        self.known.append(proposed)
        return proposed

    def learn(self, choices: Choices, score: float) -> None:
        self.best.append((choices, score))
        self.best.sort(key=lambda each: -each[1])
        del self.best[self.parents :]

    def _made(self, place: int, random: Random) -> Choices:
        """A new genotype of a generation, mutated, crossed or drawn by its place."""
        if not self.chosen or place >= self.mutations + self.crossings:
            return self.variation.draw(random)
        if place < self.mutations:
            parent = random.choice(self.chosen)
            kept = {label: choice for label, choice in parent.items() if random.random() >= self.probability}
            return self.variation.complete(kept, random)
        return self.variation.cross(random.choice(self.chosen), random.choice(self.chosen), random)
