"""The searcher `local_search`: moves to the best neighbour until none is better, then starts again."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from nas.genotype.decision import Choice
from nas.searchers.searcher import Searcher
from nas.searchers.variation import Choices
from nas.space.definition import Description

Key = tuple[tuple[str, Choice], ...]


class LocalSearch(Searcher):
    """Scores all neighbours of a genotype, and moves to the best one if it is better.

    A neighbour differs in one decision. After a local optimum the search starts again at a drawn genotype. Neighbours
    with a known score are not proposed again.

    Args:
        description: the decisions of the space.
        first: move as soon as a neighbour is better, without scoring the remaining ones.
        seed: of the course.

    References:
        White et al., "Exploring the Loss Landscape in Neural Architecture Search", UAI 2021, algorithm 1; `first` is
        their variant "query until lower".
    """

    settings = ("first",)
    state = ("scores", "centre", "neighbours", "waiting", "optima")

    def __init__(self, description: Description, *, first: bool = False, seed: int = 0) -> None:
        super().__init__(description, seed=seed)
        self.first = first
        self.scores: dict[Key, float] = {}
        """All scores so far."""
        self.centre: Choices | None = None
        """What the search is at; None if it starts again."""
        self.neighbours: list[Choices] = []
        """Of the centre."""
        self.waiting: list[Choices] = []
        """Those of them that are not proposed yet, the next one last."""
        self.optima: list[tuple[Choices, float]] = []
        """The local optima, with their scores."""

    def propose(self, random: Random) -> Choices:
        while self.centre is not None:
            if self.waiting:
                return self.waiting.pop()
            if any(key_of(each) not in self.scores for each in self.neighbours):
                break  # another process is at the last ones
            self._move(random)
        if self.centre is None:
            return self._begin(random)
        return self.variation.draw(random)

    def learn(self, choices: Choices, score: float) -> None:
        self.scores[key_of(choices)] = score
        if self.first and self.centre is not None and score > self.scores.get(key_of(self.centre), score):
            self.waiting = []
            self.neighbours = [choices]

    def _begin(self, random: Random) -> Choices:
        drawn = self.variation.draw(random)
        self._enter(drawn, random)
        return drawn

    def _enter(self, choices: Choices, random: Random) -> None:
        self.centre = choices
        self.neighbours = self.variation.neighbours(choices, random)
        self.waiting = [each for each in self.neighbours if key_of(each) not in self.scores]

    def _move(self, random: Random) -> None:
        """Go to the best neighbour of a centre all of whose neighbours have scores, or leave a local optimum."""
        assert self.centre is not None
        own = self.scores.get(key_of(self.centre))
        best = max(self.neighbours, key=lambda each: self.scores[key_of(each)], default=None)
        if best is not None and own is not None and self.scores[key_of(best)] > own:
            self._enter(best, random)
            return
        if own is not None:
            self.optima.append((self.centre, own))
        self.centre = None


def key_of(choices: Mapping[str, Choice]) -> Key:
    """Choices as a key, whatever their order."""
    return tuple(sorted(choices.items()))
