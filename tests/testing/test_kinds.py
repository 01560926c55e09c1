"""The conformance tests of every kind pass on what is built in, and each of them fails on something that is broken."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

import nas
import toy
from nas.declarations import SHARES, declares
from nas.derive.random import choose_randomly
from nas.derive.strongest import choose_strongest
from nas.errors import NASError
from nas.hypergradient.response import Loss, Parameters, Step, differentiate, leaves
from nas.registry import kind
from nas.relaxation.softmax import Softmax
from nas.run import checkpoint
from nas.run.stopping import Stop
from nas.searchers.random_search import RandomSearch
from nas.space.wrapper import Wrapper
from nas.testing import (
    DerivationTests,
    FormatTests,
    FreezingTests,
    HypergradientTests,
    ModelTests,
    ObserverTests,
    OperationTests,
    OptimizerTests,
    RegularizerTests,
    RelaxationTests,
    ScheduleTests,
    ScoreTests,
    SearcherTests,
    StoppingRuleTests,
    TaskTests,
    WrapperTests,
)
from nas.testing.hypergradient import Quadratic
from tmics_space.models import tmics_compact

KINDS = (
    RelaxationTests,
    WrapperTests,
    RegularizerTests,
    HypergradientTests,
    OperationTests,
    TaskTests,
    SearcherTests,
    ScoreTests,
    DerivationTests,
    OptimizerTests,
    ScheduleTests,
    FreezingTests,
    StoppingRuleTests,
    ObserverTests,
    ModelTests,
    FormatTests,
)


def conformance_tests(conformance: type) -> list[str]:
    return [name for name, _ in inspect.getmembers(conformance) if name.startswith("test_")]


def run(conformance: type, **attributes: Any) -> None:
    """Run all tests of a class with these attributes."""
    tests = type("Tests", (conformance,), attributes)()
    for name in conformance_tests(conformance):
        getattr(tests, name)()


# What is built in


@pytest.mark.parametrize("name", [*kind("relaxation").names(), {"name": "softmax", "temperature": 0.5}])
def test_relaxations_of_the_package(name: Any) -> None:
    run(RelaxationTests, relaxation=name)


ARGUMENTS: Mapping[str, Mapping[str, Any]] = {"partial_channels": {"k": 3}, "skip_dropout": {"rate": 0.3}}


@pytest.mark.parametrize(
    ("name", "relaxation"),
    [
        (name, relaxation)
        for name in kind("wrapper").names()
        for relaxation in (("softmax",) if name == "perturbation" else ("softmax", "gumbel"))
    ],
)
def test_wrappers_of_the_package(name: str, relaxation: str) -> None:
    run(WrapperTests, wrapper={"name": name, **ARGUMENTS.get(name, {})}, relaxation=relaxation)


@pytest.mark.parametrize("name", kind("regularizer").names())
def test_regularizers_of_the_package(name: str) -> None:
    run(RegularizerTests, regularizer=name)


@pytest.mark.parametrize("name", [*kind("searcher").names(), {"name": "optuna", "sampler": "nsga2", "population": 4}])
def test_searchers_of_the_package(name: Any) -> None:
    run(SearcherTests, searcher=name)


TRAINED = ("one_shot", "retraining")


@pytest.mark.parametrize("name", [name for name in kind("score").names() if name not in TRAINED])
def test_scores_of_the_package(name: str) -> None:
    run(ScoreTests, score=name)


METHODS = {
    "first_order": ({}, "nothing", 1e-12),
    "unrolled": ({"steps": 3}, "steps", 1e-12),
    "truncated": ({"steps": 3, "last": 3}, "steps", 1e-12),
    "finite_difference": ({}, "steps", 1e-9),
    "neumann": ({"terms": 60, "step_size": 0.4}, "optimum", 1e-9),
    "conjugate_gradient": ({"iterations": 6, "damping": 0.0}, "optimum", 1e-9),
    "gauss_newton": ({}, "other", 0.0),
    "implicit": ({"damping": 0.0}, "optimum", 1e-12),
    "closed": ({}, "optimum", 1e-12),
}


@pytest.mark.parametrize("name", kind("hypergradient").names())
def test_hypergradients_of_the_package(name: str) -> None:
    arguments, form, tolerance = METHODS[name]
    run(HypergradientTests, hypergradient={"name": name, **arguments}, approximates=form, tolerance=tolerance)


OURS = ("nas.", "search_spaces.", "tmics_space.")

PARTS: Mapping[type, tuple[str, Mapping[str, Mapping[str, Any]]]] = {
    DerivationTests: (
        "derivation",
        {
            "best_of": {"samples": 4},
            "budgeted": {"params": 500},
            "perturbation": {},
            "random": {},
            "strongest": {},
            "threshold": {},
        },
    ),
    OptimizerTests: (
        "optimizer",
        {
            "adam": {"lr": 0.1},
            "adamw": {"lr": 0.1},
            "exponentiated_gradient": {},
            "sgd": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        },
    ),
    ScheduleTests: ("schedule", {"constant": {}, "cosine": {"final_lr": 0.1}}),
    FreezingTests: ("freezing", {"oles": {"window": 5}}),
    StoppingRuleTests: (
        "stopping rule",
        {
            "darts_plus": {"cell": "cell", "skips": 1},
            "robust_darts": {"start": 2},
            "stable_ranking": {"stable_for": 3},
        },
    ),
    ObserverTests: ("observer", {"responses": {"moments": 2, "most": 2}}),
    ModelTests: ("model", {"tmics-compact": {}}),
}


@pytest.mark.parametrize(("conformance", "name"), [(each, name) for each in PARTS for name in PARTS[each][1]], ids=str)
def test_other_parts_of_the_package(conformance: type, name: str) -> None:
    kind_name, parts = PARTS[conformance]
    run(conformance, **{kind_name.replace(" ", "_"): {"name": name, **parts[name]}})


@pytest.mark.parametrize(("kind_name", "parts"), PARTS.values())
def test_all_parts_of_the_package_are_tested(kind_name: str, parts: Mapping[str, Any]) -> None:
    assert {name for name, place in kind(kind_name).names().items() if place.startswith(OURS)} == set(parts)


@pytest.mark.parametrize("name", [n for n, place in kind("operation").names().items() if place.startswith(OURS)])
def test_operations_of_the_package(name: str) -> None:
    run(OperationTests, operation=name)


@pytest.mark.parametrize(
    ("task", "space", "splits"),
    [
        ("toy", "toy", toy.SPLITS[:3]),
        ({"name": "classification", "data": {"kind": "digits"}}, "digits", ("train", "val")),
    ],
)
def test_tasks(task: Any, space: str, splits: tuple[str, ...]) -> None:
    run(TaskTests, task=task, splits=splits, network=lambda _: nas.Supernet(space))


def test_methods_differ_from_forms_they_do_not_approximate() -> None:
    problem = Quadratic()
    for name, (arguments, own, _) in METHODS.items():
        method = kind("hypergradient").create({"name": name, **arguments}, name)
        for form in ("optimum", "steps", "nothing"):
            assert form == own or problem.error(method, form) > 1e-3, (name, form)  # type: ignore[arg-type]


# Relaxations


def relaxing(function: Callable[[nn.Module, Tensor], Tensor]) -> Mapping[str, Any]:
    class Relaxing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))
            self.scale = random.random()

        def forward(self, logits: Tensor) -> Tensor:
            return function(self, logits)

    return {"relaxation": Relaxing}


def counted(self: nn.Module, logits: Tensor) -> Tensor:
    self.count += 1
    return logits.softmax(-1)


def offset(self: nn.Module, logits: Tensor) -> Tensor:
    return (logits + self.scale * torch.arange(len(logits))).softmax(-1)


def calls(self: nn.Module, logits: Tensor) -> Tensor:
    self.calls = getattr(self, "calls", 0) + 1
    return (logits + 0.1 * self.calls * torch.arange(len(logits))).softmax(-1)


def straight_through(self: nn.Module, logits: Tensor) -> Tensor:
    soft = logits.softmax(-1)
    return (soft == soft.max()).to(soft) + (soft - soft.detach())


RELAXATIONS = [
    ("test_mixing_weights_are_shares", relaxing(lambda _, logits: 2 - logits.softmax(-1)), "must be in"),
    ("test_mixing_weights_are_shares", relaxing(lambda _, logits: logits.sigmoid()), "add up to 1"),
    ("test_mixing_weights_are_shares", relaxing(lambda _, logits: logits / logits.sum()), "finite"),
    ("test_mixing_weights_are_shares", relaxing(lambda _, logits: logits.softmax(-1)[:1]), r"\(1,\)"),
    (
        "test_the_order_of_candidates_does_not_matter",
        relaxing(lambda _, logits: (logits + torch.arange(len(logits))).softmax(-1)),
        "reordered",
    ),
    (
        "test_evaluation_is_deterministic",
        relaxing(lambda _, logits: (logits + torch.randn_like(logits)).softmax(-1)),
        "random state",
    ),
    ("test_evaluation_is_deterministic", relaxing(counted), "'count'"),
    ("test_the_gradient_equals_finite_differences", relaxing(straight_through), "finite differences"),
    (
        "test_a_copy_with_the_state_computes_the_same",
        relaxing(lambda self, logits: (self.scale * logits).softmax(-1)),
        "state_dict",
    ),
    (
        "test_noise_comes_from_the_search",
        relaxing(lambda self, logits: (logits + self.training * torch.randn_like(logits)).softmax(-1)),
        "random state",
    ),
    (
        "test_gradients_reach_the_logits_through_a_supernet",
        relaxing(lambda _, logits: logits.detach().softmax(-1) + 0 * logits),
        "is zero",
    ),
    (
        "test_gradients_reach_the_logits_through_a_supernet",
        {"relaxation": declares(gives=SHARES)(type("Unlearned", (Softmax,), {}))},
        "declare LEARNED",
    ),
    ("test_planned_and_checkpointed_evaluation_equal_the_plain_one", relaxing(offset), "changes the output"),
    ("test_unrolled_responses_equal_the_plain_ones_or_are_refused", relaxing(offset), "depends on how cells"),
    ("test_a_search_that_is_saved_and_loaded_steps_bit_for_bit", relaxing(calls), "saved and loaded after every step"),
]

# Wrappers


def wrapping(function: Callable[[Any, Tensor], Tensor]) -> Mapping[str, Any]:
    class Wrapping(Wrapper):
        def __init__(self) -> None:
            self.scale, self.calls = random.random(), 0

        def transform(self, weights: Any, moment: Any) -> Any:
            self.calls += 1
            return {label: function(self, w) for label, w in weights.items()}

    return {"wrapper": Wrapping}


def scaled(self: Any, w: Tensor) -> Tensor:
    return self.scale * w


def aged(self: Any, w: Tensor) -> Tensor:
    return (1 + 0.1 * self.calls) * w


WRAPPERS = [
    ("test_it_changes_something", wrapping(lambda _, w: w), "without it does"),
    ("test_it_changes_something", {"wrapper": {"name": "skip_dropout", "rate": 0.0}}, "without it does"),
    ("test_evaluation_is_deterministic", wrapping(aged), "in eval mode differ"),
    ("test_gradients_reach_every_arch_parameter", wrapping(lambda _, w: 2 * w.detach()), "is zero"),
    ("test_noise_comes_from_the_search", wrapping(lambda _, w: w + torch.rand_like(w)), "random state"),
    ("test_planned_and_checkpointed_evaluation_equal_the_plain_one", wrapping(scaled), "changes the output"),
    ("test_unrolled_responses_equal_the_plain_ones_or_are_refused", wrapping(scaled), "depends on how cells"),
    ("test_a_search_that_is_saved_and_loaded_steps_bit_for_bit", wrapping(aged), "saved and loaded after every step"),
]

# Regularizers


def total(supernet: nas.Supernet) -> Tensor:
    return torch.stack([w.square().sum() for w in supernet.mixing_weights().values()]).sum()


def ramping() -> Mapping[str, Any]:
    calls = itertools.count(1)
    return {"regularizer": lambda supernet: next(calls) * total(supernet)}


def changing(supernet: nas.Supernet) -> Tensor:
    supernet.eval()
    return total(supernet)


def regularizing(function: Callable[[nas.Supernet], Any]) -> Mapping[str, Any]:
    return {"regularizer": function}


REGULARIZERS = [
    ("test_it_is_a_finite_scalar", regularizing(lambda net: 1.0), r"tensor, got 1\.0"),
    ("test_it_is_a_finite_scalar", regularizing(lambda net: net.logits()[0]), "scalar"),
    ("test_it_is_a_finite_scalar", regularizing(lambda net: total(net) / 0), "got inf"),
    ("test_it_depends_on_the_arch_parameters", regularizing(lambda net: torch.zeros(())), "does not depend"),
    ("test_it_depends_on_the_arch_parameters", regularizing(lambda net: 0 * total(net)), "is zero"),
    (
        "test_the_gradient_equals_finite_differences",
        regularizing(lambda net: total(net) * total(net).detach()),
        "finite differences",
    ),
    (
        "test_operation_weights_get_no_gradient",
        regularizing(lambda net: total(net) + net.weights()[0].sum()),
        r"'0\.weight'",
    ),
    ("test_it_changes_nothing", regularizing(changing), "mode"),
    ("test_it_changes_nothing", regularizing(lambda net: total(net) * torch.rand(())), "random state"),
    ("test_the_ramp_scales_it", ramping(), "half of the ramp"),
]

# Hypergradients


def step_of(loss: Loss, own: Parameters, others: Parameters, rate: float = Quadratic.rate) -> Parameters:
    point = leaves(own)
    gradients = differentiate(loss(point, others), list(point.values()), create_graph=True)
    return {name: w - rate * g for (name, w), g in zip(own.items(), gradients, strict=True)}


def responding(function: Callable[[Loss, Parameters, Parameters, Step], Parameters]) -> Mapping[str, Any]:
    return {"hypergradient": lambda: function}


def in_place(loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
    response = step_of(loss, own, others)
    for value in own.values():
        value.add_(1.0)
    return response


def backward(loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
    loss({name: value.detach().clone() for name, value in own.items()}, others).backward()
    return step_of(loss, own, others)


def by_name(loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
    response = step_of(loss, own, others)
    first = min(own)
    return {**own, first: response[first]}


def counting() -> Mapping[str, Any]:
    calls = itertools.count(1)
    return responding(lambda loss, own, others, step: step_of(loss, own, others, 0.01 * next(calls)))


def needs_a_gradient(loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
    torch.autograd.grad(loss(leaves(own), others), others["a"])
    return own


HYPERGRADIENTS = [
    (
        "test_the_gradient_equals_its_closed_form",
        responding(lambda loss, own, others, step: step_of(loss, own, others, 0.2)),
        r"\(steps\)",
    ),
    (
        "test_the_gradient_equals_its_closed_form",
        {"hypergradient": "unrolled", "approximates": "optimum"},
        r"at most 1e-06, got .* \(optimum\);",
    ),
    (
        "test_a_level_that_does_not_depend_on_upper_ones_does_not_respond",
        responding(lambda loss, own, others, step: {n: w + others["a"].sum() for n, w in own.items()}),
        "a difference of",
    ),
    (
        "test_the_response_has_the_form_of_the_parameters",
        responding(lambda loss, own, others, step: dict(list(own.items())[:1])),
        r"\['first'\]",
    ),
    (
        "test_the_response_has_the_form_of_the_parameters",
        responding(lambda loss, own, others, step: {n: w.float() for n, w in own.items()}),
        "float32",
    ),
    (
        "test_the_response_has_the_form_of_the_parameters",
        responding(lambda loss, own, others, step: {n: w / 0 for n, w in own.items()}),
        "must be finite",
    ),
    ("test_names_mean_nothing", responding(by_name), "names"),
    ("test_nothing_changes", responding(in_place), "value of 'first'"),
    ("test_nothing_changes", responding(backward), "`grad` of 'a'"),
    (
        "test_nothing_changes",
        responding(lambda loss, own, others, step: {n: w + 0 * torch.rand(()) for n, w in own.items()}),
        "random state",
    ),
    ("test_equal_calls_give_equal_gradients", counting(), "differ by"),
    ("test_constant_upper_parameters_need_no_gradient", responding(needs_a_gradient), "does not require grad"),
]

# Operations


class Apply(nn.Module):
    """A layer, and a function of its output."""

    weight: Tensor

    def __init__(self, channels: int, function: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.function = nn.Conv2d(channels, channels, 1), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, self.layer(x))


class Shared(Apply):
    """Copies share it."""

    def __deepcopy__(self, memo: object) -> Shared:
        return self


class Misdescribed(Apply):
    """Says that it is its layer alone."""

    def structure(self) -> list[nn.Module]:
        return [self.layer]


def applying(function: Callable[[Any, Tensor], Tensor], of: type[Apply] = Apply) -> Mapping[str, Any]:
    return {"operation": lambda channels: of(channels, function)}


def growing(self: nn.Module, x: Tensor) -> Tensor:
    self.weight = nn.Parameter(torch.ones(x.shape[1], 1, 1))
    return self.weight * x


def unused(channels: int) -> nn.Module:
    module = nn.Conv2d(channels, channels, 1)
    module.other = nn.Linear(1, 1)
    return module


def named_at_random(channels: int) -> nn.Module:
    return nn.ModuleDict({f"layer_{random.random():.6f}".replace(".", "_"): nn.Conv2d(channels, channels, 1)})


class Counted(nn.Module):
    """Counts its calls."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return x


OPERATIONS = [
    (
        "test_outputs_have_the_expected_shape",
        {"operation": lambda channels: nn.Conv2d(channels, channels, 3)},
        r"must give \(2, 8, 8, 6\), got \(2, 8, 6, 4\)",
    ),
    (
        "test_outputs_have_the_expected_shape",
        {"operation": lambda channels, *, stride=1: nn.Conv2d(channels, channels, stride, stride)},
        r"stride 2 .* \(2, 8, 7, 5\) must give \(2, 8, 4, 3\)",
    ),
    ("test_outputs_have_the_expected_shape", applying(lambda _, x: (x, x)), "must be a tensor"),  # type: ignore[arg-type,return-value]
    ("test_it_is_described_on_the_meta_device", applying(lambda _, x: x * x.mean().item()), "meta"),
    ("test_gradients_are_finite_and_reach_every_parameter", applying(lambda _, x: x.detach()), "is detached"),
    ("test_gradients_are_finite_and_reach_every_parameter", {"operation": unused}, "'other.weight' gets no gradient"),
    (
        "test_gradients_are_finite_and_reach_every_parameter",
        applying(lambda _, x: (x - x.detach()).abs().sqrt()),
        "is not finite",
    ),
    ("test_it_leaves_its_input_as_it_is", {"operation": lambda channels: nn.ReLU(inplace=True)}, "inplace=False"),
    ("test_names_of_its_state_are_fixed", {"operation": named_at_random}, "built twice"),
    ("test_names_of_its_state_are_fixed", applying(growing), "a forward pass changes"),
    ("test_it_computes_in_the_precision_of_its_input", applying(lambda _, x: x.float()), "float32"),
    ("test_evaluation_is_repeatable", applying(lambda _, x: nn.functional.dropout(x, training=True)), "random state"),
    ("test_evaluation_is_repeatable", {"operation": Counted}, "'count'"),
    ("test_a_copy_is_independent", applying(lambda _, x: x, Shared), "shares weights"),
    ("test_items_of_a_batch_are_independent", applying(lambda _, x: x - x.mean(0)), "with its batch"),
    ("test_planned_evaluation_equals_plain_evaluation", applying(lambda _, x: x + 1, Misdescribed), "planned"),
]

# Tasks


class Sound(nas.Task):
    """The sum of two numbers."""

    score = "error"
    metrics: Mapping[str, Any] = {"error": "min"}
    losses = {"squares": lambda network, batch: (network(batch[0]) - batch[1]).square().mean()}  # noqa: RUF012

    def numbers(self, split: str, index: int) -> Tensor:
        return torch.randn(4, 2, generator=torch.Generator().manual_seed(2 * index + (split == "val")))

    def batch(self, split: str, index: int) -> tuple[Tensor, Tensor]:
        x = self.numbers(split, index)
        return x, x.sum(1, keepdim=True)

    def members(self, split: str) -> list[str]:
        return [split]

    def example(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, 2),)

    def evaluate(self, network: nn.Module, split: str = "test") -> dict[str, float]:
        x, y = self.batch(split, 0)
        return {"error": (network(x) - y).abs().mean().item()}

    measure = evaluate


def task(**attributes: Any) -> Mapping[str, Any]:
    changed = type("Changed", (Sound,), attributes)
    return {"task": lambda seed: changed(seed=seed), "network": lambda _: nn.Linear(2, 1)}


def reseeded(self: Sound, split: str, index: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(index)
    x = torch.randn(4, 2)
    return x, x.sum(1, keepdim=True)


def losing(function: Callable[[Tensor], Any]) -> Mapping[str, Any]:
    return task(losses={"mine": lambda network, batch: function(network(batch[0]))})


METRICS = "test_metrics_are_numbers_and_repeatable"
LOSSES = "test_losses_are_finite_scalars_with_gradients"
TASKS = [
    ("test_the_score_is_ranked", task(metrics={}), "'error'"),
    (
        "test_a_batch_is_a_function_of_split_index_and_seed",
        task(numbers=lambda self, split, index: torch.randn(4, 2)),
        "batch 0 of 'train' changes",
    ),
    (
        "test_a_batch_is_a_function_of_split_index_and_seed",
        task(calls=itertools.count(), numbers=lambda self, split, index: torch.full((4, 2), next(self.calls))),
        "batch 0 of 'train' changes",
    ),
    ("test_batches_leave_the_random_state", task(batch=reseeded), "random state"),
    ("test_splits_do_not_overlap", task(members=lambda self, split: [1, 2]), "'train' and 'val' have 2"),
    (LOSSES, losing(lambda y: y.mean().item()), "must be a tensor"),
    (LOSSES, losing(lambda y: y), "must be a scalar"),
    (LOSSES, losing(lambda y: y.mean() / 0), "must be finite"),
    (LOSSES, losing(lambda y: y.detach().mean()), "detached"),
    (LOSSES, task(losses={}), "got none"),
    ("test_a_network_takes_the_example", task(example=lambda self: torch.zeros(1, 2)), "tuple"),
    ("test_a_network_takes_the_example", task(example=lambda self: (torch.zeros(3, 2),)), r"got \[3\]"),
    ("test_a_network_takes_the_example", task(example=lambda self: (torch.zeros(1, 3),)), "shapes"),
    (METRICS, task(evaluate=lambda self, network, split: {"error": random.random()}), "and then"),
    (METRICS, task(evaluate=lambda self, network, split: {"other": 1.0}), r"evaluate.* 'error', got other"),
    (METRICS, task(measure=lambda self, network, batch: {"other": 1.0}), r"measure.* 'error'"),
    (METRICS, task(evaluate=lambda self, network, split: {"error": torch.zeros(())}), "must be a number"),
    (METRICS, task(metrics={"error": "min", "other": "max"}), "got no 'other'"),
    (METRICS, task(check=lambda self, split: (_ for _ in ()).throw(NASError("no data"))), "no data"),
    ("test_settings_are_plain_data", task(settings=lambda self: {"x": object()}), "object"),
    ("test_settings_are_plain_data", task(settings=lambda self: {"x": random.random()}), "different"),
]


def test_a_sound_task_passes() -> None:
    run(TaskTests, **task())


def searcher(**attributes: Any) -> Mapping[str, Any]:
    return {"searcher": type("Changed", (RandomSearch,), attributes)}


def forgetful(self: RandomSearch, random: random.Random) -> Any:
    """Repeats the first draw, which the state does not hold."""
    self.first = getattr(self, "first", None) or self.variation.draw(random)  # type: ignore[attr-defined]
    return self.first  # type: ignore[attr-defined]


SEARCHERS = [
    (
        "test_proposals_fit_the_space",
        searcher(propose=lambda self, random: {**self.variation.draw(random), "other": "x"}),
        "exist, got",
    ),
    (
        "test_equal_seeds_give_equal_courses",
        searcher(propose=lambda self, _: self.variation.draw(random.Random())),
        "equal seeds",
    ),
    (
        "test_seeds_matter",
        searcher(propose=lambda self, _: self.variation.draw(random.Random(self.asked))),
        "seeds 0 and 1 give the same",
    ),
    ("test_a_loaded_state_continues_the_course", searcher(propose=forgetful), "name what it learns in `state`"),
    ("test_several_proposals_may_be_open", searcher(learn=lambda self, choices, score: {}["order"]), "order"),
    (
        "test_a_score_that_is_not_finite_is_refused_in_one_line",
        searcher(tell=lambda self, genotype, score: None),
        "a score of nan must be refused",
    ),
    (
        "test_random_numbers_come_from_the_seed",
        searcher(learn=lambda self, choices, score: torch.rand(1)),
        "random state",
    ),
]

SCORES = [
    ("test_scores_are_finite_numbers", {"score": lambda network: float("nan")}, "must be a finite number, got nan"),
    ("test_a_score_is_a_function_of_genotype_batch_and_seed", {"score": lambda network: random.random()}, "then"),
    ("test_genotypes_are_told_apart", {"score": lambda network: 1.0}, "all have the score 1"),
    ("test_random_state_stays", {"score": lambda network: torch.rand(1).item()}, "random state"),
]


def deriving(function: Callable[..., Any]) -> Mapping[str, Any]:
    return {"derivation": function}


def rewriting(decisions: Any, supernet: nas.Supernet) -> Any:
    supernet.logits()[0].data.add_(1.0)
    return choose_strongest(decisions, supernet.mixing_weights())


DERIVATIONS = [
    ("test_choices_make_a_genotype", deriving(lambda decisions, weights: {}), "must be"),
    (
        "test_equal_weights_and_seeds_give_equal_choices",
        deriving(lambda decisions, generator: choose_randomly(decisions, torch.Generator().manual_seed(torch.seed()))),
        "derives .* then",
    ),
    ("test_nothing_changes", deriving(rewriting), "must not change"),
    (
        "test_limits_are_kept_or_refused",
        deriving(lambda decisions, weights, generator, at_most=None: choose_randomly(decisions, generator)),
        "'tanh' must be absent",
    ),
]


class Forgetful(torch.optim.Optimizer):
    """Gradient descent at a rate that grows with the calls, which the state does not hold."""

    calls = 0

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.1})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.calls += 1
        for p in self.param_groups[0]["params"]:
            p.data.sub_(0.1 * self.calls * p.grad)

    @staticmethod
    def virtual_step(parameter: Tensor, gradient: Tensor, state: Any, group: Any) -> tuple[Tensor, Any]:
        return parameter - 0.1 * gradient.detach(), state


OPTIMIZERS = [
    ("test_a_step_descends", {"optimizer": lambda p: torch.optim.SGD(p, 0.1, maximize=True)}, "a slope of"),
    ("test_a_parameter_without_a_gradient_stays", {"optimizer": Forgetful}, "NoneType"),
    ("test_a_loaded_state_continues_the_course", {"optimizer": Forgetful}, "takes other steps"),
    ("test_the_virtual_step_equals_the_step", {"optimizer": Forgetful}, "differs from step 2 by"),
    ("test_the_virtual_step_is_differentiable", {"optimizer": Forgetful}, "finite differences"),
]

SCHEDULES = [
    ("test_shares_are_finite_and_not_negative", {"schedule": lambda progress: 0.5 - progress}, "at least 0, got"),
    ("test_shares_are_finite_and_not_negative", {"schedule": lambda progress: float("nan")}, "must be finite"),
    ("test_a_share_is_a_function_of_progress", {"schedule": lambda progress: random.random()}, "no memory"),
]


def freezing(call: Callable[..., Any]) -> Mapping[str, Any]:
    state = {"state_dict": lambda self: {}, "load_state_dict": lambda self, state: None, "calls": 0}
    return {"freezing": type("Changed", (), {**state, "__call__": call})}


def third(self: Any, validation: Any, training: Any) -> list[str]:
    self.calls += 1
    return [] if self.calls % 23 else list(validation)


def halving(self: Any, validation: Any, training: Any) -> list[str]:
    training["cell.edges.0.gate"][0].mul_(0.5)
    return []


FREEZINGS = [
    ("test_it_freezes_operations_that_it_is_given_once", freezing(lambda self, v, t: ["other"]), "got .'other'"),
    ("test_a_loaded_state_continues_the_course", freezing(third), "freezes other operations"),
    ("test_nothing_changes", freezing(halving), "'cell.edges.0.gate' must stay"),
]


def stopping(call: Callable[..., Any]) -> Mapping[str, Any]:
    return {"stopping_rule": type("Changed", (), {"calls": 0, "__call__": call})}


def remembering(self: Any, epochs: Any) -> Stop | None:
    self.calls += 1
    return Stop("enough calls", epochs[-1].step) if self.calls > 30 else None


def sharp(self: Any, epochs: Any) -> Stop | None:
    return Stop("it is sharp", epochs[-1].step) if epochs[-1].indicators["eigenvalue"] > 1 else None


STOPPINGS = [
    ("test_it_stops_at_an_epoch_or_continues", stopping(lambda self, epochs: Stop("late", -1)), "got -1"),
    ("test_it_stops_at_an_epoch_or_continues", stopping(lambda self, epochs: "stop"), "got 'stop'"),
    ("test_it_is_a_function_of_the_epochs", stopping(remembering), "no memory"),
    ("test_nothing_changes", stopping(lambda self, epochs: epochs.pop() and None), "as they are"),
    ("test_indicators_may_be_not_finite", stopping(sharp), "NoneType"),
]


def observing(**methods: Any) -> Mapping[str, Any]:
    return {"observer": type("Changed", (nas.Observer,), {"calls": 0, **methods})}


def counts(self: Any, step: int, network: Any, genotype: Any) -> dict[str, float]:
    self.calls += 1
    return {"calls": self.calls}


OBSERVERS = [
    (
        "test_it_leaves_the_search_as_it_is",
        observing(on_epoch=lambda self, step, network, genotype: network.weights()[0].data.zero_().sum() or None),
        "must leave the run",
    ),
    (
        "test_it_leaves_the_search_as_it_is",
        observing(
            on_start=lambda self, start: setattr(self, "network", start.network),
            on_step=lambda self, step, moved: self.network.weights()[0].data.mul_(0.9),
        ),
        "differs between",
    ),
    ("test_a_loaded_state_continues_the_course", observing(on_epoch=counts), "saved and loaded"),
]


BROKEN = [
    *((DerivationTests, *row) for row in DERIVATIONS),
    *((OptimizerTests, *row) for row in OPTIMIZERS),
    *((ScheduleTests, *row) for row in SCHEDULES),
    *((FreezingTests, *row) for row in FREEZINGS),
    *((StoppingRuleTests, *row) for row in STOPPINGS),
    *((ObserverTests, *row) for row in OBSERVERS),
    *((SearcherTests, *row) for row in SEARCHERS),
    *((ScoreTests, *row) for row in SCORES),
    *((RelaxationTests, *row) for row in RELAXATIONS),
    *((WrapperTests, *row) for row in WRAPPERS),
    *((RegularizerTests, *row) for row in REGULARIZERS),
    *((HypergradientTests, *row) for row in HYPERGRADIENTS),
    *((OperationTests, *row) for row in OPERATIONS),
    *((TaskTests, *row) for row in TASKS),
]


@pytest.mark.parametrize(("conformance", "test", "attributes", "message"), BROKEN)
def test_a_broken_object_fails(conformance: type, test: str, attributes: Mapping[str, Any], message: str) -> None:
    errors = (AssertionError, KeyError, NASError, RuntimeError, TypeError, msgspec.ValidationError)
    with pytest.raises(errors, match=message):
        getattr(type("Tests", (conformance,), dict(attributes))(), test)()


def carded(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / "card.md").read_text(encoding="utf-8")
        assert old in text
        (folder / "card.md").write_text(text.replace(old, new), encoding="utf-8")

    return change


def overflowing(folder: Path) -> None:
    path = folder / "weights.safetensors"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    checkpoint.save_weights(path, {name: 1e30 * w for name, w in checkpoint.load_weights(path).items()})
    carded(before, hashlib.sha256(path.read_bytes()).hexdigest())(folder)


MODELS = [
    ("test_the_card_has_its_headings", carded("## Limits", "## Bounds"), "heading 'Limits'"),
    ("test_the_card_and_the_configuration_name_one_task", carded("task: derain", "task: toy"), "'toy'.*'derain'"),
    (
        "test_the_network_has_the_parameters_that_the_card_states",
        carded("parameters: ", "parameters: 1"),
        "the network has",
    ),
    ("test_outputs_are_finite_and_repeatable", overflowing, "must be finite"),
]


@pytest.mark.parametrize(("test", "change", "message"), MODELS)
def test_a_broken_model_fails(test: str, change: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    folder = shutil.copytree(tmics_compact(), tmp_path / "model")
    change(folder)
    with pytest.raises(AssertionError, match=message):
        getattr(type("Tests", (ModelTests,), {"model": lambda: folder})(), test)()


FIRST = nas.find_space("toy").sample(torch.Generator().manual_seed(0))
FORMATS = [
    ("test_a_genotype_has_one_text", lambda genotype: " ", lambda text: FIRST, "is empty"),
    ("test_a_genotype_has_one_text", lambda genotype: str(random.random()), lambda text: FIRST, "is written .* then"),
    ("test_what_is_written_is_read_again", lambda genotype: "x", lambda text: FIRST, "is read as"),
    ("test_other_texts_are_refused_in_one_line", lambda genotype: "x", lambda text: FIRST, "must be refused"),
]


@pytest.mark.parametrize(("test", "write", "read", "message"), FORMATS)
def test_a_broken_format_fails(test: str, write: Any, read: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind("exporter"), "_registered", {"broken": write})
    monkeypatch.setattr(kind("importer"), "_registered", {"broken": read})
    with pytest.raises(AssertionError, match=message):
        getattr(type("Tests", (FormatTests,), {"format": "broken", "space": "toy"})(), test)()


def test_every_conformance_test_can_fail() -> None:
    others = {(ModelTests, test) for test, *_ in MODELS} | {(FormatTests, test) for test, *_ in FORMATS}
    assert others | {(each, test) for each, test, *_ in BROKEN} == {
        (each, test) for each in KINDS for test in conformance_tests(each)
    }


def test_a_network_must_be_given() -> None:
    with pytest.raises(NotImplementedError, match=r"TestNothing must define network\(\)"):
        type("TestNothing", (TaskTests,), {"task": "toy"})().test_a_network_takes_the_example()
