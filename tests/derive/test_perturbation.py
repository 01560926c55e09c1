"""The policy `perturbation` on a toy whose scores are in closed form: what is decided, when, and from what."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch

from nas.derive.perturbation import choose_by_perturbation
from nas.derive.policy import choose
from nas.errors import ConfigError, DivergedError
from nas.genotype.decision import NONE, Choice, Decision
from nas.registry import kind

DECISIONS = {
    decision.label: decision
    for decision in (
        Decision("a/n", "inputs", (0, 1, 2), 2, True),
        *(Decision(f"a/e{i}", "operation", ("x", "y", NONE), conditions=(("a/n", i),)) for i in range(3)),
        Decision("b/o", "operation", ("x", "y")),
        Decision("b/w", "width", (4, 8), conditions=(("b/o", "y"),)),
        Decision("b/only", "operation", ("z",)),
    )
}
WORTH = {("a/e0", "x"): 3.0, ("a/e0", "y"): 1.0, ("a/e1", "y"): 2.0, ("a/e2", "x"): 0.5, ("b/o", "x"): 1.0}
WORTH |= {("a/e0", NONE): 9.0, ("b/w", 8): 1.0}


class Toy:
    """Each candidate is worth its part of a sum, and training doubles what the candidates of `b/o` are worth to `y`."""

    def __init__(self, kept: Mapping[str, Choice] | None = None, trained: int = 0) -> None:
        self.choices: dict[str, Choice] = dict(kept or {})
        self.trained = trained
        self.log: list[str] = []

    def __call__(self, *, rounds: int, epochs: int, lr: float) -> Toy:
        self.log.append(f"{rounds} rounds, {epochs} epochs, {lr:g}")
        return self

    def worth(self, label: str, candidate: str | int) -> float:
        if (label, candidate) == ("b/o", "y"):
            return 0.75 * self.trained
        return WORTH.get((label, candidate), 0.0)

    def score(self, label: str, candidate: str | int) -> float:
        assert label not in self.choices
        total = sum(self.worth(*pair) for pair in WORTH)
        if label == "a/n":  # an in-edge is worth what its operation is
            return total - self.worth(f"a/e{candidate}", str(self.choices[f"a/e{candidate}"]))
        return total - self.worth(label, candidate)

    def choose(self, label: str, choice: Choice) -> None:
        self.choices[label] = choice
        self.log.append(label)

    def train(self) -> None:
        self.trained += 1
        self.log.append("train")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_what_the_score_falls_most_without_is_chosen() -> None:
    toy = Toy()
    found = choose_by_perturbation(DECISIONS, toy, generator(), epochs=3, lr=0.2)
    assert found == {"a/n": (0, 1), "a/e0": "x", "a/e1": "y", "b/o": "x", "b/only": "z"}, "no `none`, no absent width"
    assert toy.log[0] == "3 rounds, 3 epochs, 0.2"


def test_defaults_and_decisions_without_a_choice() -> None:
    toy, idle = Toy(), Toy()
    choose_by_perturbation(DECISIONS, toy, generator())
    assert toy.log[0] == "3 rounds, 5 epochs, 0.1"
    assert choose_by_perturbation({"b/only": DECISIONS["b/only"]}, idle, generator()) == {"b/only": "z"}
    assert idle.log == ["0 rounds, 5 epochs, 0.1"]


def test_a_decision_comes_after_those_that_it_is_inside_of() -> None:
    nested = [
        Decision("r", "operation", ("x", "y"), conditions=(("q", "x"),)),
        Decision("q", "operation", ("x", "y"), conditions=(("p", "x"),)),
        Decision("p", "operation", ("x", "y")),
    ]
    for seed in range(6):
        toy = Toy()
        choose_by_perturbation({d.label: d for d in nested}, toy, generator(seed))
        assert [line for line in toy.log[1:] if line != "train"] == ["p", "q", "r"]


def test_operations_come_first_and_one_decision_of_each_cell_at_a_time() -> None:
    orders = set()
    for seed in range(12):
        toy = Toy()
        choose_by_perturbation(DECISIONS, toy, generator(seed))
        log = toy.log[1:]
        assert log[-1] == "a/n", "in-edges last, and nothing trains after the last decision"
        first, *others = "".join(f"{each} " for each in log).split("train ")
        assert len(first.split()) == 2, "one of each cell"
        assert "b/o" in first, "the width inside a candidate waits for it"
        assert [len(each.split()) for each in others] == [1, 1, 1]
        orders.add(tuple(each for each in log if each.startswith("a/e")))
    assert len(orders) > 2, "in random order"


def test_later_decisions_are_scored_after_training() -> None:
    """`b/o` is decided in the first round; with two trainings before it, `y` is worth more than `x`."""
    found = choose_by_perturbation(DECISIONS, Toy(trained=2), generator())
    assert (found["b/o"], found["b/w"]) == ("y", 8)


def test_a_resumed_derivation_decides_the_rest_alike() -> None:
    whole = Toy()
    expected = choose_by_perturbation(DECISIONS, whole, generator(3))
    ends = [i for i, each in enumerate(whole.log) if each == "train"]
    for count, end in enumerate(ends, 1):
        made = {each: whole.choices[each] for each in whole.log[1:end] if each != "train"}
        resumed = Toy(made, trained=count)
        assert choose_by_perturbation(DECISIONS, resumed, generator(3)) == expected
        assert resumed.log[1:] == whole.log[end + 1 :]


def test_a_score_that_is_not_finite_is_named() -> None:
    toy = Toy()
    toy.worth = lambda label, candidate: math.nan  # type: ignore[method-assign]
    with pytest.raises(DivergedError, match=r"'perturbation': the score of '.*' without '.*' must be finite, got nan"):
        choose_by_perturbation(DECISIONS, toy, generator())


def test_without_a_supernet_to_train_it_is_refused() -> None:
    assert kind("derivation").find("perturbation") is choose_by_perturbation
    with pytest.raises(ConfigError, match="derivation 'perturbation' needs 'project', got nothing"):
        choose("perturbation", DECISIONS, generator=generator())
    with pytest.raises(ConfigError, match=r"takes no limits, got at_most=\{'x': 1\}"):
        choose("perturbation", DECISIONS, generator=generator(), project=Toy(), at_most={"x": 1})
