"""`choose`: labels, conditions, seeds, and what each chooser builds and refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.compare.problems import lint
from nas.cost.network_cost import measure
from nas.cost.space_cost import costs
from nas.derive.random import choose_randomly
from nas.draw.rendering import render
from nas.errors import SpaceError, UnknownNameError
from nas.genotype.file import Genotype
from nas.space.chooser import Building, Chooser, Derived, Described, Relaxed
from nas.space.definition import SearchSpace
from nas.space.mixed import ChosenDepth, ChosenWidth, Decided, MixedDepth, MixedOperation, MixedWidth, Node
from nas.space.operations import OperationSet
from nas.space.primitives import avg_pool

Function = Callable[[Building], nn.Module]


def linear() -> nn.Module:
    return nn.Linear(2, 2)


PAIR = {"x": linear, "y": linear}


def uniform(label: str) -> Tensor:
    return torch.tensor([0.5, 0.5])


def relaxed(function: Function, seed: int = 0) -> nn.Module:
    return Relaxed(uniform, seed).build(function, {})


def derived(function: Function, seed: int = 0, **choices: Any) -> nn.Module:
    return Derived(Genotype(space="t", choices=choices), seed).build(function, {})


def decisions(function: Function) -> dict[str, Any]:
    choose = Described()
    choose.build(function, {})
    return choose.decisions


def both(*modules: nn.Module) -> nn.Module:
    return nn.Sequential(*modules)


class Apart(nn.Module):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)


CHOOSERS = [
    lambda: Relaxed(uniform),
    lambda: Described(),
    lambda: Derived(Genotype(space="t", choices={"a": "x", "w": 4, "d": 1, "n": (0,)})),
]


# Labels and candidates


@pytest.mark.parametrize("choose", CHOOSERS)
@pytest.mark.parametrize("label", ["", "a b", "a.b", "a\n", "a:b", "keys", "values", "training", "type", "forward"])
def test_labels_that_cannot_be(choose: Callable[[], Building], label: str) -> None:
    with pytest.raises(SpaceError, match=f"label must .*, got '{label.strip()}"):
        choose().build(lambda choose: choose(label, PAIR), {})


@pytest.mark.parametrize("label", ["a", "A_1-2", "cell/1", "n/3<-0", "größe", "1", "weight"])
def test_labels_that_can_be(label: str) -> None:
    assert list(decisions(lambda choose: choose(label, PAIR))) == [label]


@pytest.mark.parametrize("choose", CHOOSERS)
@pytest.mark.parametrize("name", ["", "1x", "a-b", "a.b", "forward", "label", "training", "half", "parameters"])
def test_candidates_that_cannot_be(choose: Callable[[], Building], name: str) -> None:
    with pytest.raises(SpaceError, match=f"candidate of 'a' must .*, got '{name}'"):
        choose().build(lambda choose: choose("a", {name: linear}), {})


@pytest.mark.parametrize("choose", CHOOSERS)
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda choose: choose("a", {}), "'a' must .* candidate, got none"),
        (lambda choose: choose.inputs("n", {}), "'n' must .* candidate, got none"),
        (lambda choose: choose.inputs("n", {0: linear}, keep=0), "'keep' of 'n' must be .* at least 1, got 0"),
        (lambda choose: choose.inputs("n", {0: linear}, keep="1"), "'keep' of 'n' must be .* at least 1, got '1'"),
        (lambda choose: choose.inputs("n", {-1: linear}), "a source of 'n' must be .* at least 0, got -1"),
        (lambda choose: choose.inputs("n", {"a": linear}), "a source of 'n' must be .* at least 0, got 'a'"),
        (lambda choose: choose.inputs("n", [linear]), "candidates of 'n' must be a mapping .*, got list"),
        (lambda choose: choose.inputs("n", {0: nn.ReLU()}), "candidate '0' of 'n' .*, got the module ReLU"),
        (lambda choose: choose.inputs("n", {0: nn.Linear}), "candidate '0' of 'n' must take no arguments"),
        (lambda choose: choose.width("w", ()), "'w' must .* candidate, got none"),
        (lambda choose: choose.width("w", (4, 8, 4)), "candidates of 'w' must .*, got 4, 8, 4"),
        (lambda choose: choose.width("w", (0, 4)), "a size of 'w' must .* at least 1, got 0"),
        (lambda choose: choose.width("w", (4, 1.5)), r"a size of 'w' must .* at least 1, got 1\.5"),
        (lambda choose: choose.width("w", ("4", 8)), "a size of 'w' must .* at least 1, got '4'"),
        (lambda choose: choose.width("w", 4), "sizes of 'w' must .*, got 4"),
        (lambda choose: choose.depth("d", (1, -1), lambda i: linear()), "a count of 'd' must be .* at least 0, got -1"),
        (lambda choose: choose.depth("d", 1, lambda i: linear()), "the counts of 'd' must be a sequence .*, got 1"),
        (lambda choose: choose.depth("d", (1,), linear()), "the block of 'd' must be .*, got the module Linear"),
        (lambda choose: choose.depth("d", (1,), linear), "candidate '0' of 'd' must take one argument"),
        (lambda choose: choose.depth("d", (1,), lambda i: None), "candidate '0' of 'd' must return .*, got NoneType"),
        (lambda choose: choose("a", [linear, linear]), "candidates of 'a' must be a mapping .*, got list"),
        (lambda choose: choose("a", nn.ModuleDict()), "candidates of 'a' must be a mapping .*, got the module Modul"),
        (lambda choose: choose("a", {"x": nn.ReLU()}), "candidate 'x' of 'a' must .*, got the module ReLU"),
        (lambda choose: choose("a", {"x": linear, "y": "conv"}), "candidate 'y' of 'a' must be a function .*, got str"),
        (lambda choose: choose("a", {"x": lambda: 3}), "candidate 'x' of 'a' must return an nn.Module, got int"),
        (lambda choose: choose("a", {"x": lambda: nn.ReLU}), "candidate 'x' of 'a' must .*, got the class ReLU"),
        (lambda choose: choose("a", {"x": nn.Linear}), "'x' of 'a' must take no arguments"),
        (lambda choose: choose("a", {"x": partial(linear, 3)}), "'x' of 'a' must take no arguments: .*partial"),
        (lambda choose: choose("a", OperationSet({"x": avg_pool})), "'x' of 'a' must .*'channels'.*OperationSet.bind"),
        (lambda choose: choose("a", {1: linear}), "candidate of 'a' must .*, got '1'.*'op_1'"),
        (lambda choose: choose("a", {"3x3": linear}), "candidate of 'a' must .*, got '3x3'.*'op_3x3'"),
        (lambda choose: choose(1, {"x": linear}), "label must .*, got '1'"),
        (lambda choose: (choose("a", PAIR),), "'<lambda>' must return .*, got tuple"),
        (lambda choose: None, "'<lambda>' must return .*, got NoneType"),
    ],
)
def test_decisions_that_cannot_be(choose: Callable[[], Building], function: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message) as error:
        choose().build(function, {})
    assert "\n" not in str(error.value)


def test_errors_inside_a_candidate_stay_as_they_are() -> None:
    def broken() -> nn.Module:
        return nn.Linear(2)  # type: ignore[call-arg]

    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        relaxed(lambda choose: choose("a", {"x": broken}))


def test_whole_numbers_of_any_kind() -> None:
    def function(choose: Building) -> nn.Module:
        return Apart(
            choose.width("w", np.array([2, 4])),
            choose.depth("d", (number for number in (0, 2)), lambda i: linear()),
            choose.inputs("n", {np.int64(0): linear, 1: linear}, keep=np.int64(1)),
        )

    found = decisions(function)
    assert [found[label].candidates for label in "wdn"] == [(2, 4), (0, 2), (0, 1)]
    assert all(type(number) is int for label in "wdn" for number in found[label].candidates)
    assert type(found["n"].keep) is int
    assert derived(function, w=4, d=0, n=(1,)).parts[0].channels == 4


@pytest.mark.parametrize("counts", [(0,), (0, 2), (2, 0, 1)])
def test_no_block_at_all(counts: tuple[int, ...]) -> None:
    def function(choose: Building, /) -> nn.Module:
        return nn.Sequential(
            nn.Linear(2, 2), choose.depth("d", counts, lambda i: choose(f"b{i}", {"x": linear, "y": nn.Identity}))
        )

    space = SearchSpace("none", function)
    genotype = Genotype(space="none", choices={"d": 0})
    network = space.derived(genotype)
    assert [type(module) for module in network] == [nn.Linear, ChosenDepth]
    x = torch.randn(3, 2)
    assert torch.equal(network(x), network[0](x))
    description = space.describe()
    assert lint(genotype.dump()) == []
    assert costs(description).of(genotype.choices) == measure(genotype) == 6
    expected = sum(6 + 3 * count for count in counts) / len(counts)
    assert costs(description).uniform == pytest.approx(expected)
    for cells in ("beside", "open", "closed"):
        assert "b0" not in render(description, genotype, "text", cells=cells)
        assert render(description, None, "svg", cells=cells).startswith("<svg")
    choices = choose_randomly(description.decisions, torch.Generator().manual_seed(0))
    assert len(choices) == 1 + choices["d"]


def test_candidates_may_share_a_module() -> None:
    shared = nn.Linear(2, 2)
    function = lambda choose: choose("a", {"x": lambda: shared, "y": lambda: shared})  # noqa: E731
    x = torch.randn(3, 2)
    assert torch.allclose(relaxed(function)(x), shared(x))
    blocks = lambda choose: choose.depth("a", (1, 3), lambda i: shared)  # noqa: E731
    assert torch.allclose(relaxed(blocks)(x), 0.5 * shared(x) + 0.5 * shared(shared(shared(x))))
    assert torch.equal(derived(blocks, a=3)(x), shared(shared(shared(x))))
    edges = lambda choose: choose.inputs("a", {0: lambda: shared, 1: lambda: shared})  # noqa: E731
    assert torch.allclose(derived(edges, a=(0, 1))([x, 2 * x]), shared(x) + shared(2 * x))


@pytest.mark.parametrize(
    ("second", "found"),
    [
        (lambda choose: choose("a", {"x": linear, "z": linear}), "x, y, then x, z"),
        (lambda choose: choose("a", {"y": linear, "x": linear}), "x, y, then y, x"),
        (lambda choose: choose("a", {"x": linear}), "x, y, then x"),
        (lambda choose: choose.width("a", (4, 8)), "x, y, then a width of 4, 8"),
        (lambda choose: choose.inputs("a", {0: linear}), "x, y, then 1 of the sources 0"),
    ],
)
@pytest.mark.parametrize("choose", CHOOSERS)
def test_one_label_is_one_decision(choose: Callable[[], Building], second: Any, found: str) -> None:
    with pytest.raises(SpaceError, match=f"'a' must .*, got {found}$"):
        choose().build(lambda choose: both(choose("a", PAIR), second(choose)), {})


def test_one_label_keeps_as_many_in_edges() -> None:
    edges = {0: linear, 1: linear}
    with pytest.raises(SpaceError, match="1 of the sources 0, 1, then 2 of the sources 0, 1"):
        decisions(lambda choose: both(choose.inputs("n", edges, keep=1), choose.inputs("n", edges)))
    assert decisions(lambda choose: choose.inputs("n", edges, keep=5))["n"].keep == 2


# Conditions


def test_decisions_inside_candidates_are_conditional() -> None:
    def inner(choose: Chooser) -> nn.Module:
        return both(choose("b", {"p": lambda: choose("c", PAIR), "q": linear}), choose.width("w", (1, 2)))

    found = decisions(lambda choose: choose("a", {"x": lambda: inner(choose), "y": linear}))
    assert list(found) == ["a", "b", "c", "w"]
    assert found["a"].conditions == ()
    assert found["b"].conditions == (("a", "x"),)
    assert found["c"].conditions == (("b", "p"),)
    assert found["w"].conditions == (("a", "x"),)


def test_decisions_on_edges_are_conditional_on_their_source() -> None:
    found = decisions(lambda choose: choose.inputs("n", {s: lambda s=s: choose(f"e{s}", PAIR) for s in (0, 1)}, keep=1))
    assert found["e1"].conditions == (("n", 1),)


def test_decisions_in_blocks_are_conditional_on_the_counts_that_reach_them() -> None:
    found = decisions(lambda choose: choose.depth("d", (3, 1), lambda i: choose(f"b{i}", PAIR)))
    assert found["b0"].conditions == (("d", 3), ("d", 1))
    assert found["b1"].conditions == found["b2"].conditions == (("d", 3),)


def test_a_label_inside_two_candidates_needs_either() -> None:
    def shared(choose: Chooser) -> nn.Module:
        return choose("s", PAIR)

    def function(choose: Building) -> nn.Module:
        return both(
            choose("a", {"x": lambda: shared(choose), "y": linear}),
            choose("b", {"x": linear, "y": lambda: shared(choose)}),
        )

    assert decisions(function)["s"].conditions == (("a", "x"), ("b", "y"))
    for first, second, needed in [("x", "x", True), ("y", "y", True), ("x", "y", True), ("y", "x", False)]:
        choices = {"a": first, "b": second, **({"s": "x"} if needed else {})}
        derived(function, **choices)
        assert decisions(function)["s"].active(choices) is needed


def test_a_label_also_outside_candidates_needs_nothing() -> None:
    for inside_first in (True, False):

        def function(choose: Building, inside_first: bool = inside_first) -> nn.Module:
            parts = [lambda: choose("a", {"x": lambda: choose("s", PAIR), "y": linear}), lambda: choose("s", PAIR)]
            return both(*(part() for part in (parts if inside_first else reversed(parts))))

        assert decisions(function)["s"].conditions == ()


# What each chooser builds


def everything(choose: Building) -> nn.Module:
    return Apart(
        choose("a", PAIR),
        choose.inputs("n", {0: linear, 1: linear}, keep=1),
        choose.width("w", (1, 2)),
        choose.depth("d", (1, 2), lambda i: linear()),
    )


def test_relaxed_builds_all_candidates() -> None:
    a, n, w, d = relaxed(everything).parts
    assert [type(part) for part in (a, n, w, d)] == [MixedOperation, Node, MixedWidth, MixedDepth]
    assert [[name for name, _ in part.named_children()] for part in (a, n, w, d)] == [
        ["x", "y"],
        ["0", "1"],
        [],
        ["0", "1"],
    ]
    assert w.channels == 2


def test_derived_builds_what_was_chosen() -> None:
    a, n, w, d = derived(everything, a="y", n=(1,), w=1, d=1).parts
    assert [type(part) for part in (a, n, w, d)] == [Decided, Node, ChosenWidth, ChosenDepth]
    assert [[name for name, _ in part.named_children()] for part in (a, n, w, d)] == [["y"], ["1"], [], ["0"]]
    assert w.channels == 1


def test_described_allocates_nothing_and_does_not_run() -> None:
    network = Described().build(everything, {})
    assert all(parameter.is_meta for parameter in network.parameters())
    with pytest.raises(SpaceError, match=r"'a' .*Use nas\.Supernet"):
        network.parts[0](torch.ones(1, 2))


def test_candidates_not_chosen_are_not_built() -> None:
    def fail() -> nn.Module:
        raise AssertionError("built")

    derived(lambda choose: choose("a", {"x": linear, "y": fail}), a="x")


GOOD: Mapping[str, Any] = {"a": "x", "n": (1,), "w": 1, "d": 2}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"a": None}, SpaceError, "genotype of space 't' must .* 'a', x, y, got none"),
        ({"n": None}, SpaceError, "genotype of space 't' must .* 'n', 1 of the sources 0, 1, got none"),
        ({"w": None}, SpaceError, "genotype of space 't' must .* 'w', a width of 1, 2, got none"),
        ({"a": "xx"}, UnknownNameError, r"unknown candidate of 'a' 'xx' \(did you mean 'x'\?\); known: x, y"),
        ({"a": 1}, UnknownNameError, "unknown candidate of 'a' '1'"),
        ({"a": (0,)}, UnknownNameError, "unknown candidate of 'a'"),
        ({"n": (0, 1)}, SpaceError, r"'n' must be 1 of the sources 0, 1, got \[0, 1\]"),
        ({"n": (7,)}, SpaceError, r"'n' must be .*, got \[7\]"),
        ({"n": "x"}, SpaceError, "'n' must be .*, got 'x'"),
        ({"w": 3}, SpaceError, "'w' must be a width of 1, 2, got 3"),
        ({"w": "1"}, SpaceError, "'w' must be .*, got '1'"),
        ({"d": 5}, SpaceError, "'d' must be a depth of 1, 2, got 5"),
        ({"aa": "x"}, SpaceError, r"unknown decision in the genotype of space 't' 'aa' \(did you mean 'a'\?\)"),
    ],
)
def test_choices_that_do_not_fit(change: dict[str, Any], error: type[Exception], message: str) -> None:
    derived(everything, **GOOD)
    choices = {label: choice for label, choice in {**GOOD, **change}.items() if choice is not None}
    with pytest.raises(error, match=message):
        derived(everything, **choices)


# Seeds


def states(function: Function, seed: int = 0, build: Callable[..., nn.Module] = relaxed, **choices: Any) -> Any:
    return build(function, seed, **choices).state_dict()


def assert_equal(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_the_seed_gives_the_initial_weights() -> None:
    torch.manual_seed(1)
    first = states(everything)
    torch.manual_seed(2)
    assert_equal(first, states(everything))
    other = states(everything, seed=1)
    assert not any(torch.equal(first[key], other[key]) for key in first)


def test_every_candidate_and_occurrence_has_weights_of_its_own() -> None:
    found = states(lambda choose: both(choose("a", PAIR), choose("a", PAIR), choose("b", PAIR), linear(), linear()))
    weights = [value for key, value in found.items() if key.endswith("weight")]
    assert len(weights) == 8
    assert len({tuple(weight.flatten().tolist()) for weight in weights}) == 8


def test_a_label_in_two_places_has_weights_of_its_own_in_each() -> None:
    found = states(lambda choose: choose("a", {name: lambda: choose("s", {"p": linear}) for name in "xy"}))
    assert not torch.equal(found["x.p.weight"], found["y.p.weight"])


def test_weights_do_not_depend_on_neighbours() -> None:
    alone = states(lambda choose: Apart(choose("a", {"x": linear})))
    wide = {"z": lambda: nn.Linear(50, 50), "x": linear}
    among = states(
        lambda choose: Apart(choose("a", wide), choose("c", wide), choose.depth("d", (2,), lambda i: linear()))
    )
    later = states(lambda choose: both(choose("c", wide), choose("a", {"x": linear})))
    assert torch.equal(alone["parts.0.x.weight"], among["parts.0.x.weight"])
    assert torch.equal(alone["parts.0.x.weight"], later["1.x.weight"])


def test_weights_outside_decisions_do_not_depend_on_candidates() -> None:
    with_many = states(lambda choose: both(choose("a", {"x": lambda: nn.Linear(50, 50), "y": linear}), linear()))
    without = states(lambda choose: both(nn.Identity(), linear()))
    assert torch.equal(with_many["1.weight"], without["1.weight"])


@pytest.mark.parametrize("choose", CHOOSERS)
def test_building_leaves_the_callers_random_state(choose: Callable[[], Building]) -> None:
    def function(choose: Building) -> nn.Module:
        torch.manual_seed(5)
        return choose("a", {"x": lambda: nn.Sequential(linear(), nn.Dropout()), "y": linear})

    def failing(choose: Building) -> nn.Module:
        return choose("a", {"x": lambda: linear().no_such_method()})

    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    building = choose()
    if isinstance(building, Derived):
        building = Derived(Genotype(space="t", choices={"a": "x"}))
    building.build(function, {})
    with pytest.raises(AttributeError):
        choose().build(failing, {})
    assert torch.equal(torch.rand(3), expected)
