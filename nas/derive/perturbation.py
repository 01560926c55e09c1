"""The policy `perturbation`: each decision takes the candidate that the supernet misses most.

How much a candidate is missed is how far the validation score falls without it. Between decisions the supernet trains
on. The policy determines the order of decisions. The caller provides the supernet: the resource `project` returns a
`Projection`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from nas.derive.candidates import allowed, existing, positions
from nas.errors import DivergedError
from nas.genotype.decision import Choice, Decision
from nas.registry import Count, Positive


class Projection(Protocol):
    """A copy of a supernet that becomes a derived network, decision by decision.

    The copy is the caller's, so that the supernet of the search stays as it is.
    """

    @property
    def choices(self) -> Mapping[str, Choice]:
        """The choices so far, also those before the derivation was killed and resumed."""

    def score(self, label: str, candidate: str | int) -> float:
        """Return the validation score with the choices so far and without a candidate; larger is better.

        The candidate's mixing weight is 0, and others keep theirs. For in-edges it is a source.
        """

    def choose(self, label: str, choice: Choice) -> None:
        """Make a choice: its mixing weight becomes 1, and other candidates are no longer computed."""

    def train(self) -> None:
        """Train what is left for the stated number of epochs; what was chosen before is not lost by a later kill."""


class Begin(Protocol):
    """The resource `project` of a policy: a function that begins a `Projection`, or resumes it."""

    def __call__(self, *, rounds: int, epochs: int, lr: float) -> Projection:
        """Begin a projection.

        Args:
            rounds: how often it trains at most.
            epochs: of each training.
            lr: learning rates of operation weights, as a share of those of the search.
        """


def choose_by_perturbation(
    decisions: Mapping[str, Decision],
    project: Begin,
    generator: torch.Generator,
    *,
    epochs: Count = 5,
    lr: Positive = 0.1,
) -> dict[str, Choice]:
    """Choose, one decision after another, the candidate without which the validation score is lowest.

    Operations, widths and depths come first, then in-edges: a node keeps those without which the score is lowest. The
    order is random. One decision of each cell is made at a time. Then the supernet trains: operation weights with
    reduced learning rates, and logits as before.

    Args:
        decisions: the decisions of a space, by label.
        project: begins a projection of the supernet.
        generator: of the order, on the CPU.
        epochs: of the training between decisions.
        lr: learning rates of operation weights, as a share of those of the search.

    Raises:
        DivergedError: a score is not finite.

    References:
        Wang et al., Rethinking Architecture Selection in Differentiable NAS, ICLR 2021, algorithm 1;
        ruocwang/darts-pt, `sota/cnn/projection.py`.
    """
    rounds = [*_rounds(_ordered(decisions, generator, inputs=False)), *_rounds(_ordered(decisions, generator))]
    projection = project(rounds=max(len(rounds) - 1, 0), epochs=epochs, lr=lr)
    options = allowed(decisions)
    for number, labels in enumerate(rounds):
        made = False
        for label in labels:
            if label not in projection.choices and _possible(decisions, label, projection.choices):
                projection.choose(label, _needed(decisions[label], options[label], projection))
                made = True
        if made and number < len(rounds) - 1:
            projection.train()
    choices: dict[str, Choice] = {}
    for label, decision in existing(decisions, choices):
        choices[label] = projection.choices[label] if label in projection.choices else _only(decision, options[label])
    return choices


def _needed(decision: Decision, options: Sequence[int], projection: Projection) -> Choice:
    """The candidate without which the score is lowest; of equal ones the first. For in-edges, the sources to keep."""
    scores = {}
    for i in positions(decision, options):
        candidate = decision.candidates[i]
        scores[candidate] = score = projection.score(decision.label, candidate)
        if not math.isfinite(score):
            found = f"'{decision.label}' without '{candidate}'"
            raise DivergedError(f"derivation 'perturbation': the score of {found} must be finite, got {score}")
    order = sorted(scores, key=lambda candidate: scores[candidate])
    if decision.kind == "inputs":
        return tuple(sorted(int(source) for source in order[: decision.keep]))
    return order[0]


def _ordered(decisions: Mapping[str, Decision], generator: torch.Generator, *, inputs: bool = True) -> list[str]:
    """Decisions with a choice, in random order, but each after those whose candidates it is inside of."""
    open_ = [d for d in decisions.values() if len(d.candidates) > d.keep and (d.kind == "inputs") == inputs]
    drawn = [open_[i] for i in torch.randperm(len(open_), generator=generator).tolist()]
    return [decision.label for decision in sorted(drawn, key=lambda decision: _depth(decisions, decision.label))]


def _depth(decisions: Mapping[str, Decision], label: str) -> int:
    """How many candidates a decision is inside of; in-edges do not count, since they are chosen last."""
    parents = {parent for parent, _ in decisions[label].conditions if decisions[parent].kind != "inputs"}
    return max((1 + _depth(decisions, parent) for parent in parents), default=0)


def _rounds(labels: Sequence[str]) -> list[list[str]]:
    """Rounds of one decision of each cell; a cell is the part of a label before its last slash."""
    cells: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        cells[label.rpartition("/")[0]].append(label)
    count = max(map(len, cells.values()), default=0)
    return [[own[i] for own in cells.values() if i < len(own)] for i in range(count)]


def _possible(decisions: Mapping[str, Decision], label: str, choices: Mapping[str, Choice]) -> bool:
    """Whether a decision can still exist."""
    parents = {parent for parent, _ in decisions[label].conditions if parent not in choices}
    return decisions[label].active(choices) or any(_possible(decisions, parent, choices) for parent in parents)


def _only(decision: Decision, options: Sequence[int]) -> Choice:
    """The choice of a decision that leaves none."""
    if decision.kind == "inputs":
        return tuple(sorted(map(int, decision.candidates)))
    return decision.candidates[positions(decision, options)[0]]
