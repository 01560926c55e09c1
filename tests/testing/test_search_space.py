"""The conformance tests pass on a sound space, and each of them fails on a space that breaks its rule."""

from __future__ import annotations

import inspect
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.errors import NASError
from nas.space.cell import Cell, Chain
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace, search_space
from nas.space.operations import OperationSet
from nas.testing import SearchSpaceTests

OPERATIONS = OperationSet(
    {
        "conv": lambda channels: nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)),
        "pool": lambda channels: nn.MaxPool2d(3, 1, 1),
        "skip": lambda channels: nn.Identity(),
    }
).register("test_testing")


class Network(nn.Module):
    """Takes two pictures, returns a picture and a list of two numbers for each."""

    def __init__(self, choose: Chooser, channels: int, operations: OperationSet) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 1)
        chain = lambda: Chain(choose, "chain", operations.bind(channels), length=2)  # noqa: E731
        self.macro = choose("macro", {"chain": chain, "plain": lambda: nn.Conv2d(channels, channels, 1)})
        self.cells = nn.ModuleList(Cell(choose, "cell", operations.bind(channels), nodes=2, keep=1) for _ in range(2))
        self.join = nn.ModuleList(nn.Conv2d(2 * channels, channels, 1) for _ in range(2))
        self.blocks = choose.depth("depth", (1, 2), lambda i: choose(f"block/{i}", operations.bind(channels)))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        x, y = self.macro(self.stem(x)), self.stem(y)
        for cell, join in zip(self.cells, self.join, strict=True):
            x = join(cell(x, y))
        x = self.blocks(x)
        return x, {"mean": x.mean((2, 3)), "max": x.amax((2, 3))}


@search_space("test_testing")
def sound(
    choose: Chooser, /, *, channels: int = 8, operations: OperationSet = OPERATIONS, sizes: tuple[int, ...] = (1, 2)
) -> nn.Module:
    return Network(choose, channels, operations)


class TestSound(SearchSpaceTests):
    space = sound
    options = {"channels": 4}  # noqa: RUF012 - as a plugin's author writes it

    def example_input(self) -> tuple[Tensor, Tensor]:
        return torch.randn(2, 3, 6, 5), torch.randn(2, 3, 6, 5)


def widths(choose: Chooser, /) -> nn.Module:
    width = choose.width("width", (1, 3, 4))
    return nn.Sequential(nn.Conv2d(3, width.channels, 1), width, nn.Tanh(), nn.Conv2d(width.channels, 3, 1))


class TestWithWidths(SearchSpaceTests):
    space = SearchSpace("widths", widths)

    def example_input(self) -> Tensor:
        return torch.randn(3, 3, 4, 4)


# Spaces that break a rule


def pair(**more: Callable[[], nn.Module]) -> dict[str, Callable[[], nn.Module]]:
    return {"x": lambda: nn.Conv2d(3, 3, 1), "y": nn.Tanh, **more}


class Apply(nn.Module):
    """A decision, and a function of its output and itself."""

    def __init__(self, part: nn.Module, function: Callable[[Tensor, nn.Module], Any]) -> None:
        super().__init__()
        self.part, self.function = part, function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.part(x), self)


def no_decision(choose: Chooser, /) -> nn.Module:
    return nn.Conv2d(3, 3, 1)


def unused_decision(choose: Chooser, /) -> nn.Module:
    module = Apply(choose("used", pair()), lambda x, self: x)
    module.other = choose("unused", pair())
    return module


def detached_decision(choose: Chooser, /) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 3, 1), Apply(choose("a", pair()), lambda x, self: x.detach()))


def infinite_gradient(choose: Chooser, /) -> nn.Module:
    return Apply(choose("a", {"x": nn.Identity, "y": nn.Identity}), lambda x, self: (x - x.detach()).abs().sqrt())


def returns_nothing(choose: Chooser, /) -> nn.Module:
    return Apply(choose("a", pair()), lambda x, self: None)


def decision_that_comes_and_goes(choose: Chooser, /) -> nn.Module:
    width = choose.width("w", (1, 3))  # its channels are the only thing a space could look at
    return nn.Sequential(*(choose(f"more/{i}", pair()) for i in range(width.channels)), width)


class Named(nn.Module):
    def __init__(self, width: Any) -> None:
        super().__init__()
        self.add_module(f"conv_{width.channels}", nn.Conv2d(3, 3, 1))


def names_by_width(choose: Chooser, /) -> nn.Module:
    return Named(choose.width("w", (1, 3)))


def counts_its_parts(choose: Chooser, /) -> nn.Module:
    return Apply(choose("a", pair()), lambda x, self: x * len(list(self.modules())))


def returns_the_width(choose: Chooser, /) -> nn.Module:
    width = choose.width("w", (1, 3))
    return nn.Sequential(nn.Conv2d(3, width.channels, 1), width)


def norm_behind_a_width(choose: Chooser, /) -> nn.Module:
    width = choose.width("w", (1, 3))
    norm = nn.BatchNorm2d(width.channels)  # whose bias is 0 at first
    return nn.Sequential(nn.Conv2d(3, width.channels, 1), width, norm, nn.Conv2d(width.channels, 3, 1))


def unseeded_weights(choose: Chooser, /) -> nn.Module:
    def conv() -> nn.Module:
        module = nn.Conv2d(3, 3, 1)
        nn.init.constant_(module.weight, random.random())
        return module

    return choose("a", pair(z=conv))


def noisy_evaluation(choose: Chooser, /) -> nn.Module:
    return Apply(choose("a", pair()), lambda x, self: x + torch.randn_like(x))


class Counter(nn.Module):
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return x


def state_in_evaluation(choose: Chooser, /) -> nn.Module:
    return nn.Sequential(choose("a", pair()), Counter())


def no_copy(choose: Chooser, /) -> nn.Module:
    module = Apply(choose("a", pair()), lambda x, self: x)
    module.lock = threading.Lock()
    return module


class Shared(nn.Module):
    """Keeps its weight outside the module."""

    WEIGHT = nn.Parameter(torch.ones(3, 1, 1))

    def __init__(self) -> None:
        super().__init__()
        self.weight = self.WEIGHT

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight

    def __deepcopy__(self, memo: object) -> Shared:
        return self


def shared_weights(choose: Chooser, /) -> nn.Module:
    return choose("a", pair(z=Shared))


def mixes_the_batch(choose: Chooser, /) -> nn.Module:
    return Apply(choose("a", pair()), lambda x, self: x - x.mean(0))


def drops_the_batch(choose: Chooser, /) -> nn.Module:
    return Apply(choose("a", pair()), lambda x, self: x.flatten(0, 1))


class Misdescribed(nn.Module):
    """Says that it is a ReLU, and is none."""

    def structure(self) -> list[nn.Module]:
        return [nn.ReLU()]

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def misdescribed(choose: Chooser, /) -> nn.Module:
    return Apply(Cell(choose, "a", pair(z=Misdescribed), inputs=1, nodes=2), lambda x, self: x)


UNREGISTERED = OperationSet({"x": lambda: nn.Identity(), "y": nn.Tanh})


def unregistered_set(choose: Chooser, /, *, operations: OperationSet = UNREGISTERED) -> nn.Module:
    return choose("a", operations.bind())


def option_that_is_no_number(choose: Chooser, /, *, rate: float = float("nan")) -> nn.Module:
    return choose("a", pair())


def conformance(function: Callable[..., nn.Module], example: Tensor | None = None) -> SearchSpaceTests:
    class Tests(SearchSpaceTests):
        space = SearchSpace(function.__name__, function)

        def example_input(self) -> Tensor:
            return torch.randn(2, 3, 4, 4) if example is None else example

    return Tests()


BROKEN = [
    ("test_the_space_has_decisions", no_decision, "asks `choose` for nothing"),
    ("test_options_are_plain_data", unregistered_set, "operation 'x' must be registered"),
    (
        "test_options_are_plain_data",
        option_that_is_no_number,
        "options change in a genotype file: rate: nan became nan",
    ),
    ("test_gradients_reach_every_arch_parameter", unused_decision, "the decision 'unused' does not reach the output"),
    ("test_gradients_reach_every_arch_parameter", detached_decision, "the output is detached from every parameter"),
    ("test_gradients_reach_every_arch_parameter", infinite_gradient, "the gradient of 'a' is not finite"),
    ("test_gradients_reach_every_arch_parameter", returns_nothing, "the network returned no tensor"),
    ("test_genotypes_build_and_survive_a_file", decision_that_comes_and_goes, "has no such decision"),
    ("test_derived_weights_are_named_as_in_the_supernet", names_by_width, r"the supernet lacks: conv_1\.bias"),
    ("test_a_derived_network_begins_as_the_supernet", unseeded_weights, r"has other values of 'z\.weight'"),
    ("test_planned_evaluation_equals_plain_evaluation", misdescribed, "planned evaluation differs from plain"),
    ("test_a_fixed_supernet_equals_the_derived_network", counts_its_parts, "supernet and derived network differ"),
    ("test_a_fixed_supernet_equals_the_derived_network", returns_the_width, r"returns \[\(2, 3, 4, 4\)\], derived"),
    ("test_narrow_networks_inherit_what_the_supernet_computes", norm_behind_a_width, "with 'w' = 1 does not compute"),
    (
        "test_the_seed_gives_the_initial_weights",
        unseeded_weights,
        "a second supernet of the same seed has other values",
    ),
    ("test_evaluation_is_repeatable", noisy_evaluation, "in eval mode two equal calls differ by up to"),
    ("test_evaluation_is_repeatable", state_in_evaluation, r"a supernet evaluated once has other values of '.*count'"),
    ("test_a_copy_is_independent", no_copy, "cannot pickle"),
    ("test_a_copy_is_independent", shared_weights, "a deep copy of the supernet shares weights with it"),
    ("test_items_of_a_batch_are_independent", mixes_the_batch, "an item's output changes by up to"),
    ("test_items_of_a_batch_are_independent", drops_the_batch, "the output's first dimension is 6, expected"),
]


@pytest.mark.parametrize(("test", "function", "message"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_a_broken_space_fails(test: str, function: Callable[..., nn.Module], message: str) -> None:
    with pytest.raises((AssertionError, NASError, TypeError), match=message):
        getattr(conformance(function), test)()


def test_every_conformance_test_can_fail() -> None:
    tests = {name for name, _ in inspect.getmembers(SearchSpaceTests) if name.startswith("test_")}
    assert {test for test, _, _ in BROKEN} == tests


def test_the_batch_of_the_example_is_checked() -> None:
    with pytest.raises(AssertionError, match="has a batch of 1, expected 2 or more items"):
        conformance(widths, torch.ones(1, 3, 4, 4)).test_items_of_a_batch_are_independent()


def test_an_example_must_be_given() -> None:
    class TestNothing(SearchSpaceTests):
        space = sound

    with pytest.raises(NotImplementedError, match=r"TestNothing must define example_input\(\)"):
        TestNothing().test_evaluation_is_repeatable()


def test_the_module_does_not_need_pytest() -> None:
    import nas.testing.search_space

    assert "pytest" not in inspect.getsource(nas.testing.search_space)
