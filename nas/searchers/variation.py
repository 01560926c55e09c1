"""Choices of a space at random: drawn, changed in one decision, crossed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from random import Random

from nas.derive.candidates import allowed, existing, positions
from nas.genotype.decision import Choice, Decision, requirements

Choices = dict[str, Choice]


class Variation:
    """Draws, changes and crosses the choices of a space.

    Decisions inside candidates that are not chosen are absent. A node that selects its in-edges takes no `none` on
    them, as when a genotype is derived. Every method is a function of its arguments and of the random numbers. `draw`
    has the distribution of `nas.derive.random`, by Python's generator: a searcher makes a new one for each proposal.

    Args:
        decisions: the decisions of a space, by label.
    """

    def __init__(self, decisions: Mapping[str, Decision]) -> None:
        self.decisions = dict(decisions)
        own = {label: positions(decision, allowed(decisions)[label]) for label, decision in decisions.items()}
        self.options = {label: tuple(d.candidates[i] for i in own[label]) for label, d in decisions.items()}
        """The candidates that each decision may choose; the sources for one of kind `inputs`."""
        self._unconditional = not any(requirements(label, decisions) for label in decisions)

    def draw(self, random: Random) -> Choices:
        """Draw choices: every decision takes any of its candidates, all equally probable."""
        return self.complete({}, random)

    def complete(self, choices: Mapping[str, Choice], random: Random) -> Choices:
        """Return `choices` without decisions that do not exist, and with missing ones drawn."""
        if self._unconditional:
            return {label: choices[label] if label in choices else self._drawn(label, random) for label in self.options}
        found: Choices = {}
        for label, _ in existing(self.decisions, found):
            found[label] = choices[label] if label in choices else self._drawn(label, random)
        return found

    def mutate(self, choices: Mapping[str, Choice], random: Random) -> Choices:
        """Change one decision, each equally probable, to another candidate.

        One source of a node's in-edges is replaced by another. Decisions inside a newly chosen candidate are drawn. If
        nothing has an alternative, the choices stay as they are.
        """
        varied = [label for label in choices if self.varies(label)]
        if not varied:
            return dict(choices)
        label = random.choice(varied)
        return self.complete({**choices, label: random.choice(self.alternatives(label, choices[label]))}, random)

    def neighbours(self, choices: Mapping[str, Choice], random: Random) -> list[Choices]:
        """Return all choices that differ in one decision, in random order; see `mutate`."""
        changes = [(label, other) for label in choices for other in self.alternatives(label, choices[label])]
        random.shuffle(changes)
        return [self.complete({**choices, label: other}, random) for label, other in changes]

    def cross(self, one: Mapping[str, Choice], other: Mapping[str, Choice], random: Random) -> Choices:
        """Take each decision from either of two parents, equally probable; from the one that has it, if only one."""
        parents = (one, other)
        taken = {label: random.choice([p[label] for p in parents if label in p]) for label in {**one, **other}}
        return self.complete(taken, random)

    def varies(self, label: str) -> bool:
        """Whether a decision has an alternative to any choice."""
        decision = self.decisions[label]
        return len(self.options[label]) > (decision.keep if decision.kind == "inputs" else 1)

    def alternatives(self, label: str, choice: Choice) -> list[Choice]:
        """The other choices of a decision; of in-edges those with one other source."""
        options = self.options[label]
        if not isinstance(choice, tuple):
            return [option for option in options if option != choice]
        others = [source for source in options if source not in choice]
        return [_sources((*(s for s in choice if s != left), new)) for left in choice for new in others]

    def every(self, label: str) -> list[Choice]:
        """All choices of a decision."""
        decision = self.decisions[label]
        if decision.kind != "inputs":
            return list(self.options[label])
        return [_sources(each) for each in combinations(self.options[label], decision.keep)]

    def chosen(self, label: str, places: Iterable[int]) -> Choice:
        """Return the choice of a decision that takes the options at some places: one, or several sources."""
        options = [self.options[label][place] for place in places]
        return _sources(options) if self.decisions[label].kind == "inputs" else options[0]

    def _drawn(self, label: str, random: Random) -> Choice:
        decision, options = self.decisions[label], self.options[label]
        if decision.kind != "inputs":
            return random.choice(options)
        return _sources(options if decision.keep == len(options) else random.sample(options, decision.keep))


def _sources(sources: Iterable[str | int]) -> tuple[int, ...]:
    return tuple(sorted(map(int, sources)))
