"""REINFORCE: the enumerated expectation of its estimate is the exact gradient; its optimizer is torch's Adam."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random

import pytest
import torch

import nas
from nas.genotype.decision import Choice, Decision
from nas.searchers.categorical import Policy, Values
from nas.searchers.reinforce import Reinforce
from nas.searchers.variation import Choices, Variation

DECISIONS = {
    decision.label: decision
    for decision in (
        Decision("n", "inputs", (0, 1, 2, 3), keep=2, pruned=True),
        Decision("e", "operation", ("conv", "none", "pool"), conditions=(("n", 0),)),
        Decision("w", "width", (4, 8, 16)),
    )
}
VARIATION = Variation(DECISIONS)
LOGITS: Values = {"n": [0.3, -0.2, 0.9, 0.1], "e": [0.7, -0.4], "w": [0.0, 0.5, -1.0]}


def every() -> Iterator[Choices]:
    for sources, width in product(VARIATION.every("n"), VARIATION.every("w")):
        for operation in VARIATION.every("e") if 0 in sources else [None]:  # type: ignore[operator]
            yield {"n": sources, "w": width} | ({} if operation is None else {"e": operation})


def reward(choices: dict[str, Choice]) -> float:
    return Random(repr(sorted(choices.items()))).random()


def expected(logits: Values) -> float:
    policy = Policy(VARIATION, logits)
    return sum(policy.probability(choices) * reward(choices) for choices in every())


def test_probabilities_are_those_of_draws() -> None:
    policy = Policy(VARIATION, LOGITS)
    assert sum(map(policy.probability, every())) == pytest.approx(1, abs=1e-14)
    drawn = [policy.draw(Random(seed)) for seed in range(4000)]
    for choices in every():
        probability = policy.probability(choices)
        error = (probability * (1 - probability) / 4000) ** 0.5
        assert drawn.count(choices) / 4000 == pytest.approx(probability, abs=4.5 * error)


@pytest.mark.parametrize("baseline", [0.0, 0.37])
def test_the_expectation_of_the_estimate_is_the_exact_gradient(baseline: float) -> None:
    policy = Policy(VARIATION, LOGITS)
    step = 1e-5
    for label, logits in LOGITS.items():
        for i in range(len(logits)):
            estimate = sum(
                policy.probability(choices) * (reward(choices) - baseline) * policy.gradient(choices)[label][i]
                for choices in every()
                if label in choices
            )
            moved = [{**LOGITS, label: [x + d * (j == i) for j, x in enumerate(logits)]} for d in (step, -step)]
            exact = (expected(moved[0]) - expected(moved[1])) / (2 * step)
            assert estimate == pytest.approx(exact, abs=1e-9)


def test_its_steps_are_those_of_adam_in_torch() -> None:
    space = nas.find_space("nas-bench-201").describe()
    searcher = Reinforce(space, lr=0.05, decay=0.8, seed=3)
    logits = {label: torch.zeros(len(x), dtype=torch.double) for label, x in searcher.logits.items()}
    optimizer = torch.optim.Adam(logits.values(), lr=0.05)
    scores: list[float] = []
    for _ in range(20):
        genotype = searcher.ask()
        for each in logits.values():
            each.requires_grad_()
        logs = [
            logits[label].log_softmax(0)[space.decisions[label].candidates.index(choice)]
            for label, choice in genotype.choices.items()
            if not isinstance(choice, tuple)
        ]
        scores.append(sum(choice == "nor_conv_3x3" for choice in genotype.choices.values()))
        weights = [0.8**age for age in reversed(range(len(scores)))]
        mean = sum(w * s for w, s in zip(weights, scores, strict=True)) / sum(weights)
        loss = -torch.stack(logs).sum() * (scores[-1] - mean)
        for each in logits.values():
            each.grad = torch.zeros_like(each)
        loss.backward()
        optimizer.step()
        searcher.tell(genotype, scores[-1])
        for label, each in logits.items():
            assert searcher.logits[label] == pytest.approx(each.tolist(), abs=1e-12)


def test_it_learns() -> None:
    searcher = Reinforce(nas.find_space("nas-bench-201").describe(), lr=0.1, seed=0)
    for _ in range(300):
        genotype = searcher.ask()
        searcher.tell(genotype, sum(choice == "nor_conv_3x3" for choice in genotype.choices.values()))
    last = [searcher.ask() for _ in range(20)]
    assert sum(list(g.choices.values()).count("nor_conv_3x3") for g in last) > 20 * 5
