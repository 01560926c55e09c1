"""The searcher `random`: draws genotypes, all decisions uniformly. The baseline of every other method."""

from __future__ import annotations

from random import Random

from nas.searchers.searcher import Searcher
from nas.searchers.variation import Choices


class RandomSearch(Searcher):
    """Draws every genotype independently, so that one can be proposed twice.

    References:
        Li and Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", UAI 2019.
    """

    def propose(self, random: Random) -> Choices:
        return self.variation.draw(random)

    def learn(self, choices: Choices, score: float) -> None:
        pass
