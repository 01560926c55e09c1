"""What a searcher is: it proposes genotypes, and is told their scores."""

from __future__ import annotations

import abc
import copy
import math
from collections.abc import Mapping
from random import Random
from typing import Any, ClassVar

from nas.errors import ConfigError, DivergedError
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype
from nas.registry import kind
from nas.searchers.variation import Choices, Variation
from nas.space.definition import Description


class Searcher(abc.ABC):
    """Base class of searchers: proposes a genotype by `ask`, learns from its score by `tell`.

    Both may be called in any order, as several processes do: `ask` works before anything is told. Equal seeds, and
    equal scores told after the same proposals, give the same course. A searcher that loads the state of another one
    continues its course exactly.

    A subclass implements `propose` and `learn`, and names in `state` what it learns.

    Args:
        description: the decisions of the space.
        seed: of the course.

    Example:
        >>> @nas.register("searcher", "greedy")
        ... class Greedy(Searcher):
        ...     state = ("best",)
        ...     best = None
        ...     def propose(self, random):
        ...         return self.variation.mutate(self.best[0], random) if self.best else self.variation.draw(random)
        ...     def learn(self, choices, score):
        ...         if self.best is None or score > self.best[1]:
        ...             self.best = choices, score
        >>> searcher = Greedy(nas.find_space("nas-bench-201").describe())
        >>> genotype = searcher.ask()
        >>> searcher.tell(genotype, 0.5)
    """

    settings: ClassVar[tuple[str, ...]] = ()
    """Names of the attributes that must be equal to continue a course, such as the size of a population."""
    state: ClassVar[tuple[str, ...]] = ()
    """Names of the attributes that hold what was learned, in plain data."""
    default_score: ClassVar[str] = "retraining"
    """The score that a search uses if its configuration names none."""

    def __init__(self, description: Description, *, seed: int = 0) -> None:
        self.description, self.seed = description, seed
        self.variation = Variation(description.decisions)
        self.asked = 0
        """The number of proposals."""

    @property
    def number(self) -> int:
        """Of the last proposal, from 1 on; no other process that proposes for the same search has it."""
        return self.asked

    def close(self) -> None:  # noqa: B027 - most have nothing to do
        """Leave the proposals whose scores were not told to other processes, if any share the search."""

    def ask(self) -> Genotype:
        """Propose the next genotype."""
        choices = self.propose(Random((self.seed << 32) | self.asked))
        self.asked += 1
        return Genotype(space=self.description.space.name, choices=dict(choices), options=self.description.options)

    def tell(self, genotype: Genotype, score: float) -> None:
        """Learn the score of a genotype that `ask` proposed.

        Args:
            genotype: the proposal.
            score: larger is better.

        Raises:
            DivergedError: the score is not finite.
        """
        if not math.isfinite(score):
            raise DivergedError(f"the score of a genotype must be finite, got {score} for {shown(genotype.choices)}")
        self.learn(genotype.choices, score)

    @abc.abstractmethod
    def propose(self, random: Random) -> Mapping[str, Choice]:
        """Return the next choices.

        Args:
            random: the only source of random numbers, a function of the seed and of the number of proposals.
        """

    @abc.abstractmethod
    def learn(self, choices: Choices, score: float) -> None:
        """Learn a finite score of choices; larger is better. Both must stay unchanged."""

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of what continues the course, in plain data."""
        return {
            "settings": {name: getattr(self, name) for name in ("seed", *self.settings)},
            "asked": self.asked,
            "state": copy.deepcopy({name: getattr(self, name) for name in self.state}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the course that another searcher of this class had.

        Raises:
            ConfigError: its seed or another setting differs.
        """
        for name, was in state["settings"].items():
            if (now := getattr(self, name)) != was:
                raise ConfigError(f"searcher: {name} must be {was}, as when its course began, got {now}. Use {was}")
        self.asked = state["asked"]
        for name, value in copy.deepcopy(state["state"]).items():
            setattr(self, name, value)


def searcher_of(
    entry: str | Mapping[str, Any], description: Description, *, seed: int = 0, where: str = "searcher"
) -> Searcher:
    """Make the searcher that an entry of a configuration names.

    Args:
        entry: a name, or a mapping of `name` and arguments.
        description: the decisions of the space.
        seed: of the course.
        where: the place of the entry in the configuration, for messages.

    Raises:
        UnknownNameError: no searcher has this name.
        ConfigError: an argument is unknown, missing, of another type, or out of range; or the object is no `Searcher`.

    Example:
        >>> description = nas.find_space("nas-bench-201").describe()
        >>> searcher = searcher_of({"name": "evolution", "population": 10, "sample": 10}, description, seed=1)
        >>> searcher.tell(searcher.ask(), 0.9)
    """
    made = kind("searcher").create(entry, where, description, seed=seed)
    if not isinstance(made, Searcher):
        raise ConfigError(f"{where}: {entry!r} must make a nas.searchers.searcher.Searcher, got {type(made).__name__}")
    return made


def shown(choices: Mapping[str, Choice]) -> str:
    """The choices on one line."""
    return ", ".join(f"{label}={choice}" for label, choice in choices.items())
