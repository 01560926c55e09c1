"""Costs of candidates against the parameters and FLOPs of derived networks, on random spaces."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas.cost.network_cost import Unit, measure
from nas.cost.space_cost import costs
from nas.derive.random import choose_randomly
from nas.errors import ConfigError, SpaceError, UnknownNameError
from nas.genotype.decision import Choice, Decision
from nas.genotype.file import Genotype
from nas.space.cell import Cell, Chain
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace, search_space
from nas.space.mixed import ChosenWidth
from nas.space.operations import OperationSet
from nas.space.primitives import DARTS, NAS_BENCH_201, relu_conv_bn
from nas.supernet import Supernet

C = 4
INPUTS = (torch.randn(2, C, 6, 5),)


@search_space("random-for-costs")
def random_space(choose: Chooser, /, *, variant: int = 0) -> nn.Module:
    """Chains, cells, depths and decisions inside candidates, some labels in several places; a function of `variant`."""

    def part(path: str, level: int) -> nn.Module:
        draw = random.Random(f"{variant}/{path}")  # of the path alone, whatever else has been built
        kind = draw.choice(["plain", "shared", "chain", "cell", "depth", "nested"] if level else ["plain", "shared"])
        if kind == "plain":
            return relu_conv_bn(C, kernel=draw.choice([1, 3]))
        if kind == "shared":
            return choose("shared", {"plain": nn.Identity, "nested": lambda: Chain(choose, "deep", OPS, length=2)})
        if kind == "chain":
            return Chain(choose, "chain", OPS, length=draw.choice([1, 2]))
        if kind == "cell":
            return Cell(choose, f"cell{draw.choice('ab')}", OPS, nodes=2, inputs=1, keep=1, output="last")
        if kind == "depth":
            return choose.depth(f"depth{path}", [1, 3], lambda i: part(f"{path}/{i}", level - 1))
        names = ["none", "left", "right"][draw.choice([0, 1]) :]
        return choose(f"nested{path}", {name: partial(part, f"{path}/{name}", level - 1) for name in names})

    return nn.Sequential(nn.Conv2d(C, C, 3, padding=1), *(part(str(i), 2) for i in range(2)))


OPS = NAS_BENCH_201.without("nor_conv_3x3").bind(C) | {"conv": partial(nn.Conv2d, C, C, 3, padding=1)}


def drawn(space: SearchSpace, supernet: Supernet, seed: int) -> Genotype:
    choices = choose_randomly(supernet.decisions, torch.Generator().manual_seed(seed))
    return Genotype(space=space.name, options=supernet.options, choices=choices)


def count(network: nn.Module, unit: str) -> float:
    """Independent of `nas.cost.network_cost`: on real values, with real weights."""
    if unit == "parameters":
        return sum(p.numel() for p in network.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(*INPUTS)
    return counter.get_total_flops()


@pytest.mark.parametrize("unit", ["parameters", "flops"])
@settings(max_examples=6)
@given(variant=st.integers(0, 10**6), seed=st.integers(0, 10**6))
def test_costs_of_genotypes_are_those_of_derived_networks(unit: str, variant: int, seed: int) -> None:
    supernet = Supernet(random_space, variant=variant)
    cost = costs(random_space.describe(variant=variant), unit, INPUTS)
    genotype = drawn(random_space, supernet, seed)
    network = random_space.derived(genotype)
    expected = count(network, unit)
    assert cost.of(genotype.choices) == measure(genotype, unit, INPUTS) == expected
    with supernet.fixed(genotype):
        assert cost.expected(supernet.mixing_weights()).item() == expected


def test_expected_cost_is_the_mean_over_drawn_networks() -> None:
    """Each decision drawn by its mixing weights: enumerated in full, for a space with decisions inside candidates."""

    @search_space("nested-for-costs")
    def nested(choose: Chooser, /) -> nn.Module:
        def inner() -> nn.Module:
            return choose("inner", {"a": lambda: nn.Conv2d(1, 1, 1), "b": lambda: nn.Conv2d(1, 1, 3, padding=1)})

        inside = {"x": lambda: nn.Sequential(inner(), nn.Conv2d(1, 1, 1, bias=False)), "y": nn.Identity}
        blocks = choose.depth("depth", [1, 3], lambda i: nn.Sequential(nn.Conv2d(1, 1, 5, padding=2), inner()))
        return nn.Sequential(choose("outer", inside), blocks)

    cost = costs(nested.describe())
    chances = {"outer": [0.3, 0.7], "inner": [0.4, 0.6], "depth": [0.9, 0.1]}
    mean = 0.0
    for i, outer in enumerate("xy"):
        for j, inner in enumerate("ab"):
            for k, depth in enumerate((1, 3)):
                chance = chances["outer"][i] * chances["inner"][j] * chances["depth"][k]
                mean += chance * cost.of({"outer": outer, "inner": inner, "depth": depth})
    weights = {label: torch.tensor(values, dtype=torch.double) for label, values in chances.items()}
    assert cost.expected(weights).item() == pytest.approx(mean, rel=1e-12)
    # By hand: depth has 1 or 3 blocks of 26 + inner; x adds inner + 1.
    inner = 0.4 * 2 + 0.6 * 10
    assert mean == pytest.approx((0.9 * 1 + 0.1 * 3) * (26 + inner) + 0.3 * (inner + 1))


def test_expected_cost_is_differentiable() -> None:
    supernet = Supernet(random_space, variant=3).double()
    cost = costs(random_space.describe(variant=3))
    generator = torch.Generator().manual_seed(0)
    weights = {
        label: torch.rand(len(w), generator=generator, dtype=torch.double, requires_grad=True)
        for label, w in supernet.mixing_weights().items()
    }
    labels = list(weights)
    assert len(labels) > 3
    assert torch.autograd.gradcheck(
        lambda *values: cost.expected(dict(zip(labels, values, strict=True))) / 100, tuple(weights.values())
    )


def test_costs_of_candidates_and_base() -> None:
    @search_space("flat-for-costs")
    def flat(choose: Chooser, /, *, operations: OperationSet = DARTS) -> nn.Module:
        edges = [choose("edge", operations.bind(C)) for _ in range(3)]
        return nn.Sequential(
            nn.Conv2d(C, C, 1), *edges, choose.depth("depth", [1, 2], lambda i: nn.Conv2d(C, C, 3, padding=1))
        )

    parameters = costs(flat.describe())
    assert parameters.base == C * C + C
    sep3, sep5 = (2 * (C * C + k * k * C) + 4 * C for k in (3, 5))
    dil3, dil5 = (C * C + k * k * C + 2 * C for k in (3, 5))
    assert parameters.candidates == {
        "edge": tuple(3.0 * c for c in (0, 0, 0, 0, sep3, sep5, dil3, dil5)),  # the label is at three places
        "depth": (9 * C * C + C, 2 * (9 * C * C + C)),
    }
    flops = costs(flat.describe(), "flops", INPUTS)
    pixels = INPUTS[0].numel() // C
    assert flops.base == 2 * pixels * C * C
    assert flops.candidates["edge"][4:6] == tuple(3.0 * 2 * pixels * 2 * (C * C + k * k * C) for k in (3, 5))
    assert flops.uniform == pytest.approx(flops.base + sum(flops.candidates["edge"]) / 8 + 1.5 * 2 * pixels * 9 * C * C)


Space = Callable[[Chooser], nn.Module]
SIZES = {"a": (2, 6, 4), "b": (3, 5), "c": (4, 8, 2)}


class Joined(nn.Module):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Attention(nn.Module):
    """Its products of queries, keys and values belong to no module inside it."""

    def __init__(self, width: ChosenWidth) -> None:
        super().__init__()
        self.width = width
        self.project = nn.ModuleList(nn.Conv2d(C, width.channels, 1) for _ in range(3))
        self.out = nn.Conv2d(width.channels, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.width(part(x)).flatten(2) for part in self.project)
        return self.out((v @ (q.transpose(1, 2) @ k).softmax(1)).unflatten(2, x.shape[2:]))


def chain(choose: Chooser, labels: str, between: Callable[[int], nn.Module] | None = None) -> nn.Module:
    """Convolutions from width to width."""
    layers, channels = list[nn.Module](), C
    for label in labels:
        width = choose.width(label, SIZES[label])
        middle = nn.Identity() if between is None else between(width.channels)
        layers += [nn.Conv2d(channels, width.channels, 3, padding=1), width, middle]
        channels = width.channels
    return nn.Sequential(*layers, nn.Conv2d(channels, C, 1))


def depthwise(channels: int) -> nn.Module:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels)


def inside(choose: Chooser, /) -> nn.Module:
    """A width inside a candidate, and again outside of it; another inside a candidate of that candidate."""
    inner = {"skip": nn.Identity, "more": lambda: chain(choose, "ab")}
    outer = {
        "plain": lambda: nn.Conv2d(C, C, 1),
        "deep": lambda: nn.Sequential(chain(choose, "c"), choose("in", inner)),
    }
    return nn.Sequential(choose("out", outer), chain(choose, "a"))


def blocks(choose: Chooser, /) -> nn.Module:
    """A width of all blocks, and one of the second alone."""
    width = choose.width("a", SIZES["a"])

    def block(i: int) -> nn.Module:
        rest = nn.Sequential(nn.Conv2d(width.channels, C, 1), chain(choose, "b"), nn.Conv2d(C, width.channels, 1))
        return nn.Sequential(nn.Conv2d(width.channels, width.channels, 3, padding=1), rest if i else nn.Identity())

    ends = nn.Conv2d(C, width.channels, 1), nn.Conv2d(width.channels, C, 1)
    return nn.Sequential(ends[0], width, choose.depth("d", (1, 3), block), ends[1])


def candidates(choose: Chooser, /) -> nn.Module:
    """Operations of a width that is chosen outside of them."""

    def between(channels: int) -> nn.Module:
        return choose(
            "op", {"depthwise": lambda: depthwise(channels), "square": lambda: nn.Conv2d(channels, channels, 1)}
        )

    return chain(choose, "ac", between)


def shortcut(choose: Chooser, /) -> nn.Module:
    """A layer that exists only where two widths differ."""
    a, b = choose.width("a", SIZES["a"]), choose.width("a2", SIZES["a"])
    way = nn.Identity() if a.channels == b.channels else nn.Conv2d(a.channels, b.channels, 1)
    return nn.Sequential(nn.Conv2d(C, a.channels, 1), a, way, b, nn.Conv2d(b.channels, C, 1))


def joined(choose: Chooser, /) -> nn.Module:
    widths = [choose.width(label, sizes) for label, sizes in SIZES.items()]
    last = choose.width("last", (2, 1))
    branches = (nn.Sequential(nn.Conv2d(C, width.channels, 1), width) for width in widths)
    whole = sum(width.channels for width in widths)
    return nn.Sequential(Joined(*branches), nn.Conv2d(whole, last.channels, 3), last, nn.Conv2d(last.channels, C, 1))


def called_twice(choose: Chooser, /) -> nn.Module:
    """A layer outside of a decision that one of its candidates calls, too."""
    layer = nn.Conv2d(C, C, 3, padding=1)
    again = choose("again", {"yes": lambda: nn.Sequential(layer, chain(choose, "a")), "no": nn.Identity})
    return nn.Sequential(layer, again)


def shared_by_candidates(choose: Chooser, /) -> nn.Module:
    """A layer that three candidates share, of which a network has one; one of them runs it twice."""
    layer = nn.Conv2d(C, C, 3, padding=1)
    again = {"one": lambda: layer, "other": lambda: layer, "twice": lambda: nn.Sequential(layer, layer)}
    return nn.Sequential(choose("op", {**again, "none": nn.Identity}), chain(choose, "a"))


def shared_by_blocks(choose: Chooser, /) -> nn.Module:
    """A chain that runs one block again and again."""
    block = nn.Conv2d(C, C, 3, padding=1)
    return nn.Sequential(chain(choose, "a"), choose.depth("d", (1, 3), lambda i: block))


SPACES: dict[str, Space] = {
    "one": lambda choose: chain(choose, "a"),
    "two": lambda choose: chain(choose, "ab"),
    "three": lambda choose: chain(choose, "abc"),
    "the same twice": lambda choose: chain(choose, "aab"),
    "depthwise": lambda choose: chain(choose, "ab", depthwise),
    "attention": lambda choose: Attention(choose.width("a", SIZES["a"])),
    **{each.__name__: each for each in (inside, blocks, candidates, shortcut, joined, called_twice)},
    **{each.__name__: each for each in (shared_by_candidates, shared_by_blocks)},
}


def genotypes(space: SearchSpace) -> Iterator[Genotype]:
    """Every genotype of a space, by brute force."""
    decisions = space.describe().decisions
    seen = set()
    for chosen in itertools.product(*(decision.candidates for decision in decisions.values())):
        whole = dict(zip(decisions, chosen, strict=True))
        choices = {label: choice for label, choice in whole.items() if active(decisions, label, whole)}
        if tuple(choices.items()) not in seen:
            seen.add(tuple(choices.items()))
            yield Genotype(space=space.name, choices=choices)


def active(decisions: Mapping[str, Decision], label: str, choices: Mapping[str, Choice]) -> bool:
    conditions = decisions[label].conditions
    return not conditions or any(choices[p] == c and active(decisions, p, choices) for p, c in conditions)


@pytest.mark.parametrize("unit", ["parameters", "flops"])
@pytest.mark.parametrize("name", SPACES)
def test_costs_equal_those_of_every_network(name: str, unit: Unit) -> None:
    """And the expected cost is the mean over all of them, each with the chance that its choices have."""
    space = SearchSpace(name, SPACES[name])
    cost = costs(space.describe(), unit, INPUTS)
    draw = random.Random(name)
    chances: dict[str, dict[str | int, float]] = {}
    for label, decision in space.describe().decisions.items():
        odds = [draw.random() for _ in decision.candidates]
        chances[label] = {c: odd / sum(odds) for c, odd in zip(decision.candidates, odds, strict=True)}
    weights = {label: torch.tensor([*each.values()], dtype=torch.double) for label, each in chances.items()}
    mean, total, supernet = 0.0, 0.0, Supernet(space)
    for genotype in genotypes(space):
        found = count(space.derived(genotype), unit)
        assert cost.of(genotype.choices) == found > 0
        chance = math.prod(chances[label][choice] for label, choice in genotype.choices.items())  # type: ignore[index]
        mean, total = mean + chance * found, total + chance
        with supernet.fixed(genotype):
            assert cost.expected(supernet.mixing_weights()).item() == found
    assert total == pytest.approx(1, rel=1e-12)
    assert cost.expected(weights).item() == pytest.approx(mean, rel=1e-12)
    labels = list(weights)
    leaves = tuple(weight.requires_grad_() for weight in weights.values())
    assert torch.autograd.gradcheck(lambda *w: cost.expected(dict(zip(labels, w, strict=True))) / cost.uniform, leaves)


def test_what_widths_cost_alone() -> None:
    cost = costs(SearchSpace("two", SPACES["two"]).describe())
    narrow = [(9 * C + 1) * a + (9 * a + 1) * 5 for a in SIZES["a"]]
    assert cost.candidates["a"] == tuple(each - narrow[1] for each in narrow)
    assert cost.base == narrow[1] + (5 + 1) * C


def test_a_cost_that_three_widths_multiply_is_refused() -> None:
    class Product(nn.Module):
        def __init__(self, a: int, b: int, c: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(a, b, c))

    def space(choose: Chooser, /) -> nn.Module:
        parts = [choose.width(label, sizes) for label, sizes in SIZES.items()]
        return nn.Sequential(nn.Conv2d(C, C, 1), Product(*(part.channels for part in parts)))

    with pytest.raises(ConfigError, match=r"module '1' .*got a product of 'a', 'b', 'c'"):
        costs(SearchSpace("three", space).describe())


def test_a_space_that_cannot_be_built_with_a_width_is_named() -> None:
    def space(choose: Chooser, /) -> nn.Module:
        return chain(choose, "a", lambda channels: nn.GroupNorm(3, channels))

    with pytest.raises(SpaceError, match=r"^space 'groups' .*'a' = 2.* ValueError: num_channels .2."):
        costs(SearchSpace("groups", space).describe())


def test_shared_parts_count_once_at_the_outermost_place() -> None:
    class Net(nn.Module):
        def __init__(self, choose: Chooser) -> None:
            super().__init__()
            stem = nn.Conv2d(C, C, 1)
            tied = nn.Conv2d(C, C, 1)
            tied.weight = stem.weight
            self.op = choose("op", {"module": lambda: nn.Sequential(stem, tied), "skip": nn.Identity})
            self.stem = stem  # registered after the decision that uses it

        def forward(self, x: Tensor) -> Tensor:
            return self.op(self.stem(x))

    @search_space("sharing-for-costs")
    def sharing(choose: Chooser, /) -> nn.Module:
        return Net(choose)

    cost = costs(sharing.describe())
    for name in ("module", "skip"):
        genotype = Genotype(space="sharing-for-costs", choices={"op": name})
        assert cost.of(genotype.choices) == measure(genotype)


def test_bad_requests_are_errors() -> None:
    description = SearchSpace("bad", lambda choose, /: nn.Sequential(inside(choose), blocks(choose))).describe()
    with pytest.raises(UnknownNameError, match=r"'flop' .*'flops'"):
        costs(description, "flop")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match=r"'seconds'.*parameters, flops"):
        measure(nn.Identity(), "seconds")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="got none"):
        costs(description, "flops")
    with pytest.raises(ConfigError, match="1x5x4x4 on meta, got RuntimeError: Invalid channel"):
        costs(description, "flops", [torch.zeros(1, C + 1, 4, 4)])
    cost = costs(description)
    with pytest.raises(SpaceError, match=r"'c' must be .*, got None"):
        cost.of({"out": "deep", "in": "skip", "a": 2, "d": 1})
    with pytest.raises(SpaceError, match="'out' must be plain, deep, got 'depp'"):
        cost.of({"out": "depp", "in": "skip", "a": 2, "c": 8, "d": 1})


def test_a_space_without_decisions_costs_its_base() -> None:
    @search_space("fixed-for-costs")
    def fixed(choose: Chooser, /) -> nn.Module:
        return nn.Linear(3, 2)

    cost = costs(fixed.describe())
    assert cost.base == cost.of({}) == cost.expected({}) == cost.uniform == 8
