"""Derivation policies by name: what they are given, what they may return."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

from nas.derive.candidates import existing
from nas.derive.policy import RESOURCES, find_policy
from nas.derive.random import choose_randomly
from nas.derive.strongest import choose_strongest
from nas.errors import ConfigError, UnknownNameError
from nas.genotype.decision import Choice, Decision
from nas.registry import register
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace
from nas.supernet import Supernet


def _network(choose: Chooser, /) -> nn.Module:
    inner = {"conv": lambda: nn.Linear(2, 2), "skip": nn.Identity}
    return choose("outer", {"x": lambda: choose("inner", inner), "y": nn.Identity, "z": nn.Identity})


SPACE = SearchSpace("test_policy", _network)


@register("derivation", "test_policy_take")
def take(decisions: Mapping[str, Decision], *, position: Annotated[int, msgspec.Meta(ge=0)] = 0) -> dict[str, Choice]:
    """Takes the candidate at a position, of every decision that exists."""
    choices: dict[str, Choice] = {}
    for label, decision in existing(decisions, choices):
        choices[label] = decision.candidates[position]
    return choices


@pytest.fixture
def supernet() -> Supernet:
    supernet = Supernet(SPACE, seed=3)
    supernet.arch["outer"].data = torch.tensor([0.0, 1.0, 2.0])
    return supernet


def test_the_policies_are_found_by_name() -> None:
    assert find_policy("strongest").func is choose_strongest  # type: ignore[attr-defined]
    assert find_policy({"name": "random"}).func is choose_randomly  # type: ignore[attr-defined]


def test_the_strongest_is_the_default(supernet: Supernet) -> None:
    assert supernet.derive() == supernet.derive(derivation="strongest") == supernet.derive(derivation=choose_strongest)
    assert supernet.derive().choices == {"outer": "z"}


def test_arguments_come_from_the_configuration(supernet: Supernet) -> None:
    for position, expected in enumerate(["x", "y"]):
        genotype = supernet.derive(derivation={"name": "test_policy_take", "position": position})
        assert genotype.choices["outer"] == expected
    assert supernet.derive(derivation="test_policy_take").choices["outer"] == "x"


def test_a_random_genotype_is_a_function_of_the_seed() -> None:
    drawn = [Supernet(SPACE, seed=seed).derive(derivation="random").choices for seed in (*range(8), *range(8))]
    assert drawn[:8] == drawn[8:]
    assert len({tuple(choices.items()) for choices in drawn}) > 1


def test_a_policy_is_given_what_its_parameters_name(supernet: Supernet) -> None:
    given: dict[str, Any] = {}

    def everything(  # a parameter for each resource
        decisions: Any,
        weights: Any,
        logits: Any,
        costs: Any,
        shares: Any,
        at_most: Any,
        generator: Any,
        supernet: Any,
        evaluate: Any,
        evaluate_recalibrated: Any,
        project: Any,
    ) -> dict[str, Choice]:
        given.update(locals())
        given.pop("given")
        return {"inner": "conv", "outer": "x"}

    def evaluate(choices: Mapping[str, Choice]) -> float:
        return 1.0

    logits = dict(supernet.arch.items())
    how: Any = {"derivation": everything, "evaluate": evaluate, "evaluate_recalibrated": evaluate, "project": evaluate}
    supernet.derive(None, {"outer": [1, 2, 3]}, {"skip": 1}, **how)
    assert given.keys() == RESOURCES.keys()
    assert given["decisions"] is supernet.decisions
    assert given["supernet"] is supernet
    assert given["evaluate"] is evaluate
    assert (given["costs"], given["at_most"]) == ({"outer": [1, 2, 3]}, {"skip": 1})
    assert given["shares"]("parameters")[0].of({}) == 0.0
    assert given["generator"].initial_seed() == supernet.seed
    for label in supernet.arch:
        assert torch.equal(given["logits"][label], logits[label])
        assert torch.equal(given["weights"][label], logits[label].softmax(0))
        assert not given["logits"][label].requires_grad
        assert not given["weights"][label].requires_grad


@register("derivation", "test_policy_sampled")
def choose_sampled(  # the example of `Derivation`
    decisions: Mapping[str, Decision], weights: Mapping[str, Tensor], generator: torch.Generator, *, power: float = 1.0
) -> dict[str, Choice]:
    sampled = {}
    for label, weight in weights.items():
        noise = -torch.empty(weight.shape).exponential_(generator=generator).log()
        sampled[label] = (power * weight.log() + noise).softmax(0)
    return choose_strongest(decisions, sampled)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_example_samples(supernet: Supernet, power: float) -> None:
    counts = Counter[Any]()
    for seed in range(600):
        supernet.seed = seed
        counts[supernet.derive(derivation={"name": "test_policy_sampled", "power": power}).choices["outer"]] += 1
    for name, chance in zip("xyz", (supernet.arch["outer"] * power).softmax(0).tolist(), strict=True):
        assert abs(counts[name] - 600 * chance) < 5 * (600 * chance * (1 - chance)) ** 0.5


def test_what_has_a_default_may_be_lacking(supernet: Supernet) -> None:
    def policy(decisions: Any, evaluate: Any = "absent") -> dict[str, Choice]:
        assert evaluate == "absent"
        return {"inner": "conv", "outer": "x"}

    supernet.derive(derivation=policy)


def test_margins_compare_any_choice_with_its_alternatives(supernet: Supernet) -> None:
    weights = supernet.mixing_weights()["outer"]
    for choice, expected in [("z", (weights[2] - weights[1]).item()), ("y", 0.0), ("x", 0.0)]:
        inner: dict[str, Choice] = {"inner": "conv"} if choice == "x" else {}
        genotype = supernet.derive(derivation=lambda choices={"outer": choice, **inner}: choices)
        assert genotype.provenance is not None
        assert genotype.provenance.margins == pytest.approx({"outer": expected, **dict.fromkeys(inner, 0.0)})


@pytest.mark.parametrize(
    ("derivation", "error", "message"),
    [
        ("strongst", UnknownNameError, "'strongst' .*'strongest'"),
        ({"name": "test_policy_take", "place": 1}, ConfigError, "derivation.*place"),
        ({"name": "test_policy_take", "position": -1}, ConfigError, "derivation.*position.*0"),
        ({"name": "test_policy_take", "decisions": {}}, ConfigError, "derivation.*decisions"),
        ({"position": 1}, ConfigError, "derivation .*'name'"),
        (3, ConfigError, "derivation .*got 3"),
        (lambda evaluate: {}, ConfigError, "needs 'evaluate'"),
        (lambda: {}, ConfigError, "'outer' must be x, y, z, got nothing"),
        (lambda: {"outer": "x"}, ConfigError, "'inner' must be conv, skip, got nothing"),
        (lambda: {"outer": "w"}, ConfigError, "'outer' must be x, y, z, got 'w'"),
        (lambda: {"outer": "z", "other": 1}, ConfigError, "'other'"),
        (lambda: {"outer": "z", "inner": "conv"}, ConfigError, "'inner'"),
    ],
)
def test_what_cannot_work(supernet: Supernet, derivation: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        supernet.derive(derivation=derivation)


@pytest.mark.parametrize(("derivation", "name"), [("random", "random"), (choose_randomly, "choose_randomly")])
def test_limits_are_never_ignored(supernet: Supernet, derivation: Any, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' .*at_most=\{{'skip': 1\}}"):
        supernet.derive(at_most={"skip": 1}, derivation=derivation)
