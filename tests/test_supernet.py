"""The supernet, and what must hold between it and its derived networks for every space: random small ones are drawn."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nas.derive.random import choose_randomly
from nas.errors import ConfigError, SpaceError, UnknownNameError
from nas.genotype.file import Genotype, Provenance
from nas.space.cell import Cell, Chain
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace, search_space
from nas.space.operations import OperationSet
from nas.supernet import Evaluation, Memory, Supernet

CHANNELS = 2

# Random spaces


@dataclass(frozen=True)
class Plan:
    """A part of a network: maps `(batch, CHANNELS, height, width)` to the same shape. Its label is its place."""

    kind: str
    parts: tuple[Plan, ...] = ()
    number: int = 1

    def kinds(self) -> set[str]:
        return {self.kind}.union(*(part.kinds() for part in self.parts))


class Sum(nn.Module):
    """Feeds a node with its input and a multiple of it."""

    def __init__(self, node: nn.Module, sources: int) -> None:
        super().__init__()
        self.node, self.sources = node, sources

    def forward(self, x: Tensor) -> Tensor:
        return self.node([x * (i + 1) for i in range(self.sources)])


class Twofold(nn.Module):
    """Calls a cell of two inputs."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x, x / 2)


class Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0.0


def conv(inner: int = CHANNELS, outer: int = CHANNELS) -> nn.Module:
    return nn.Conv2d(inner, outer, 3, padding=1)


LEAVES: dict[str, Callable[[], nn.Module]] = {
    "conv": conv,
    "norm": lambda: nn.BatchNorm2d(CHANNELS),
    "tanh": nn.Tanh,
    "none": Zero,
    "mix": lambda: nn.Sequential(conv(), nn.BatchNorm2d(CHANNELS), nn.Tanh()),
}


def build(choose: Chooser, plan: Plan, label: str, reverse: bool = False) -> nn.Module:
    """The network of a plan; with `reverse` the candidates of every decision stand in the opposite order."""

    def part(i: int) -> Callable[[], nn.Module]:
        return lambda: build(choose, plan.parts[i], f"{label}-{i}", reverse)

    def candidates(parts: range) -> dict[str, Callable[[], nn.Module]]:
        names = {"none" if plan.parts[i].kind == "none" else f"c{i}": part(i) for i in parts}
        return dict(reversed(names.items())) if reverse else names

    every = range(len(plan.parts))
    match plan.kind:
        case "choice":
            return choose(label, candidates(every))
        case "row":
            return nn.Sequential(*(part(i)() for i in every))
        case "twice":  # the same decisions twice in one place
            return nn.Sequential(part(0)(), part(0)())
        case "apart":  # the same decisions inside candidates of different decisions
            one, other = {"p": part(0), "q": part(1)}, {"p": part(1), "q": part(0)}
            return nn.Sequential(choose(f"{label}/one", one), choose(f"{label}/other", other))
        case "chain":
            return Chain(choose, label, candidates(every), length=2, residual=plan.number > 1)
        case "cell":
            cell = Cell(choose, label, candidates(every), nodes=2, keep=plan.number, output="last")
            return Twofold(cell)
        case "wide cell":
            cell = Cell(choose, label, candidates(every), nodes=2, keep=None)
            return nn.Sequential(Twofold(cell), conv(2 * CHANNELS))
        case "node":  # in-edges with decisions beside or around them, or none at all
            edges = {i: lambda i=i: nn.Sequential(part(i)(), conv()) for i in every}
            return Sum(choose.inputs(label, edges, keep=plan.number), len(edges))
        case "width":
            width = choose.width(label, (1, 3, 4)[:: -1 if reverse else 1])
            inner, outer = conv(CHANNELS, width.channels), conv(width.channels)
            return nn.Sequential(inner, nn.BatchNorm2d(width.channels), width, nn.Tanh(), outer)
        case "depth":
            return choose.depth(label, (1, 3, 0), lambda i: part(i % len(plan.parts))())
        case leaf:
            return LEAVES[leaf]()


BRANCHES = ["choice", "row", "twice", "apart", "chain", "cell", "wide cell", "node", "depth", "width"]


def branches(inner: st.SearchStrategy[Plan]) -> st.SearchStrategy[Plan]:
    several = st.lists(inner, min_size=2, max_size=3, unique_by=lambda p: p.kind == "none" or id(p)).map(tuple)
    return st.builds(branch, st.sampled_from(BRANCHES), several, st.integers(1, 2))


def branch(kind: str, parts: tuple[Plan, ...], number: int) -> Plan:
    return Plan(kind, {"twice": parts[:1], "width": ()}.get(kind, parts), number)


LEAF = st.builds(Plan, st.sampled_from(list(LEAVES)))
ANY_PLANS = st.recursive(branches(LEAF), lambda inner: branches(inner | LEAF), max_leaves=6)
PLANS = ANY_PLANS.filter(lambda plan: bool(plan.kinds() - {*LEAVES, "row", "twice"}))  # has a decision
# A softmax never prunes an edge, and sums over masked channels are rounded otherwise.
UNPRUNED = PLANS.filter(lambda plan: not plan.kinds() & {"cell", "node", "width"})
NARROW = PLANS.filter(lambda plan: "width" not in plan.kinds())
SEEDS = st.integers(0, 1000)


def space_of(plan: Plan, reverse: bool = False) -> SearchSpace:
    return SearchSpace("random", lambda choose: build(choose, plan, "r", reverse))


def supernet_of(plan: Plan, seed: int = 0, evaluation: Evaluation = "planned") -> Supernet:
    """A supernet in float64 and eval mode, with all its parameters and statistics away from their initial values."""
    supernet = Supernet(space_of(plan), seed=seed, evaluation=evaluation).double().eval()
    generator = torch.Generator().manual_seed(seed)
    for key, value in sorted(supernet.state_dict().items()):
        if value.is_floating_point() and not key.startswith("arch"):
            noise = torch.rand(value.shape, generator=generator, dtype=torch.double)
            value.copy_(noise + 0.5 if key.endswith(("running_var",)) else noise - 0.5)
    return supernet


def random_genotype(supernet: Supernet, seed: int) -> Genotype:
    choices = choose_randomly(supernet.decisions, torch.Generator().manual_seed(seed))
    return Genotype(space=supernet.space.name, choices=choices, options=supernet.options)


def picture(seed: int = 0) -> Tensor:
    return torch.randn(2, CHANNELS, 4, 3, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def set_one_hot(supernet: Supernet, genotype: Genotype) -> None:
    """Arch parameters so far apart that the softmax is exactly one-hot; arbitrary ones where nothing is chosen."""
    for label, logits in supernet.arch.items():
        for i, candidate in enumerate(supernet.decisions[label].candidates):
            logits.data[i] = 1e4 * (candidate == genotype.choices.get(label)) + (0.1 * i)


@given(PLANS)
def test_a_description_lists_the_decisions_of_the_supernet(plan: Plan) -> None:
    supernet = Supernet(space_of(plan))
    assert supernet.space.describe().decisions == supernet.decisions
    assert supernet.arch.keys() == {label for label, d in supernet.decisions.items() if d.kind != "inputs"}
    assert all(logits.tolist() == [0.0] * len(logits) for logits in supernet.arch.values())


@given(PLANS, SEEDS)
def test_a_choice_more_or_less_does_not_build(plan: Plan, seed: int) -> None:
    supernet = supernet_of(plan)
    choices = random_genotype(supernet, seed).choices
    for label in choices:
        fewer = {other: choice for other, choice in choices.items() if other != label}
        with pytest.raises(SpaceError):
            supernet.space.derived(Genotype(space="random", choices=fewer))
    for label in supernet.decisions.keys() - choices.keys():
        decision = supernet.decisions[label]
        extra = decision.candidates[: decision.keep] if decision.kind == "inputs" else decision.candidates[0]
        more = Genotype(space="random", choices={**choices, label: extra})
        with pytest.raises(SpaceError, match="has no such decision"):
            supernet.space.derived(more)


@given(PLANS, SEEDS, st.sampled_from(["plain", "planned"]))
@settings(max_examples=80)
def test_a_fixed_supernet_equals_the_derived_network(plan: Plan, seed: int, evaluation: Evaluation) -> None:
    supernet = supernet_of(plan, seed, evaluation)
    genotype = random_genotype(supernet, seed)
    derived = supernet.derived(genotype)
    with torch.no_grad():
        with supernet.fixed(genotype):
            mixed = supernet(picture())
        expected = derived(picture())
    if "width" in plan.kinds() or evaluation == "planned":
        assert torch.allclose(mixed, expected, rtol=1e-12, atol=1e-12)
    else:
        assert torch.equal(mixed, expected)


@given(UNPRUNED, SEEDS)
@settings(max_examples=40)
def test_a_one_hot_supernet_equals_the_derived_network_bit_for_bit(plan: Plan, seed: int) -> None:
    supernet, planned = supernet_of(plan, seed, "plain"), supernet_of(plan, seed)
    genotype = random_genotype(supernet, seed)
    set_one_hot(supernet, genotype)
    set_one_hot(planned, genotype)
    with torch.no_grad():
        assert torch.allclose(planned(picture()), supernet(picture()), rtol=1e-12, atol=1e-12)
        assert torch.equal(supernet(picture()), supernet.derived(genotype)(picture()))
        supernet.float()
        assert torch.equal(supernet(picture().float()), supernet.derived(genotype)(picture().float()))


@given(PLANS, SEEDS)
def test_a_one_hot_supernet_with_widths_equals_the_derived_network(plan: Plan, seed: int) -> None:
    if plan.kinds() & {"cell", "node"}:
        return
    supernet = supernet_of(Plan("row", (Plan("width"), plan)), seed)
    genotype = random_genotype(supernet, seed)
    set_one_hot(supernet, genotype)
    with torch.no_grad():
        found, expected = supernet(picture()), supernet.derived(genotype)(picture())
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


@given(PLANS, SEEDS)
def test_the_strongest_candidates_are_derived(plan: Plan, seed: int) -> None:
    supernet = supernet_of(plan)
    genotype = random_genotype(supernet, seed)
    set_one_hot(supernet, genotype)
    derived = supernet.derive()
    supernet.derived(derived)
    free = {
        label
        for label, decision in supernet.decisions.items()
        if decision.kind != "inputs" and not any(parent in _nodes(supernet) for parent, _ in decision.conditions)
    }
    for label in free & derived.choices.keys() & genotype.choices.keys():
        assert derived.choices[label] == genotype.choices[label]


def _nodes(supernet: Supernet) -> set[str]:
    return {label for label, decision in supernet.decisions.items() if decision.kind == "inputs"}


@given(NARROW, SEEDS)
def test_a_derived_network_begins_with_the_weights_of_the_supernet(plan: Plan, seed: int) -> None:
    supernet = Supernet(space_of(plan), seed=seed)
    genotype = random_genotype(supernet, seed)
    fresh, inherited = supernet.space.derived(genotype, seed=seed), supernet.derived(genotype)
    assert_equal_states(fresh, inherited)


@given(PLANS, SEEDS)
def test_the_order_of_candidates_changes_rounding_only(plan: Plan, seed: int) -> None:
    supernet = Supernet(space_of(plan), seed=seed).double().eval()
    other = Supernet(space_of(plan, reverse=True), seed=seed).double().eval()
    mine, theirs = supernet.network.state_dict(), other.network.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    with torch.no_grad():
        assert torch.allclose(supernet(picture()), other(picture()), rtol=1e-12, atol=1e-12)


@given(PLANS, SEEDS)
def test_a_copy_is_independent_and_equal(plan: Plan, seed: int) -> None:
    supernet = supernet_of(plan, seed)
    with torch.no_grad():
        expected = supernet(picture())
        other = copy.deepcopy(supernet)
        assert torch.equal(other(picture()), expected)
        for parameter in other.parameters():
            parameter.add_(1.0 + torch.arange(len(parameter)).view(-1, *(1,) * (parameter.dim() - 1)))
        moved = other(picture())
        assert torch.equal(supernet(picture()), expected)
        assert other.derive().space == "random"
        for (name, mine), (_, theirs) in zip(supernet.named_parameters(), other.named_parameters(), strict=True):
            mine.copy_(theirs)
            assert mine is not theirs, name
        assert torch.equal(supernet(picture()), moved)


@given(PLANS, SEEDS)
def test_arch_gradients_are_those_of_finite_differences(plan: Plan, seed: int) -> None:
    supernet = supernet_of(plan, seed)
    assume(len(supernet.arch))
    generator = torch.Generator().manual_seed(seed)
    arch = {f"arch.{label}": torch.randn(len(w), generator=generator).double() for label, w in supernet.arch.items()}
    along = {name: torch.randn(len(logits), generator=generator).double() for name, logits in arch.items()}

    def loss(step: float) -> Tensor:
        moved = {name: arch[name] + step * along[name] for name in arch}
        return (torch.func.functional_call(supernet, moved, (picture(),)) * picture(seed + 1)).sum()

    for name in arch:
        arch[name].requires_grad_()
    gradients = torch.autograd.grad(loss(0.0), list(arch.values()), allow_unused=True, materialize_grads=True)
    slope = sum((gradient * along[name]).sum() for name, gradient in zip(arch, gradients, strict=True))
    step = 1e-5
    with torch.no_grad():
        expected = (loss(step) - loss(-step)) / (2 * step)
    assert float(slope) == pytest.approx(expected.item(), rel=1e-6, abs=1e-7)


def held_tensors(supernet: Supernet) -> Iterator[str]:
    """Tensors that modules hold beside their parameters and buffers."""
    for name, module in supernet.named_modules():
        for attribute, value in vars(module).items():
            if attribute in ("_parameters", "_buffers"):
                continue
            values = value.values() if isinstance(value, dict) else [value]
            if any(isinstance(item, Tensor) for item in values):
                yield f"{name}.{attribute}"


@given(PLANS)
def test_no_mixing_weights_stay_after_a_forward_pass(plan: Plan) -> None:
    supernet = supernet_of(plan)
    supernet(picture())
    assert list(held_tensors(supernet)) == []
    with pytest.raises(RuntimeError):
        supernet(torch.ones(2, 7, 4, 3, dtype=torch.double).requires_grad_() @ torch.ones(2))
    assert list(held_tensors(supernet)) == []
    copy.deepcopy(supernet)  # refuses tensors that are part of a graph


def assert_equal_states(a: nn.Module, b: nn.Module) -> None:
    mine, theirs = a.state_dict(), b.state_dict()
    assert mine.keys() == theirs.keys()
    assert [key for key in mine if not torch.equal(mine[key], theirs[key])] == []


# A space with one of each


OPERATIONS = OperationSet(
    {
        "conv": lambda channels: nn.Conv2d(channels, channels, 3, padding=1),
        "skip": lambda channels: nn.Identity(),
        "none": lambda channels: Zero(),
    }
).register("test_supernet")


class Network(nn.Module):
    def __init__(self, choose: Chooser, channels: int, operations: OperationSet) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, channels, 1)
        self.first = Chain(choose, "cell", operations.bind(channels), length=2)
        self.second = Chain(choose, "cell", operations.bind(channels), length=2)
        width = choose.width("width", (1, 3))
        self.narrow = nn.Sequential(
            nn.Conv2d(channels, width.channels, 1), width, nn.Conv2d(width.channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(self.second(self.first(self.stem(x))))


@search_space("test_supernet")
def space(choose: Chooser, /, *, channels: int = 4, operations: OperationSet = OPERATIONS) -> nn.Module:
    return Network(choose, channels, operations)


GENOTYPE = Genotype(space="test_supernet", choices={"cell/1": "conv", "cell/2": "skip", "width": 1})
IMAGE = torch.linspace(-1, 1, 2 * 2 * 3 * 3).reshape(2, 2, 3, 3)


def test_arch_parameters_are_shared_by_label_and_weights_are_not() -> None:
    supernet = Supernet(space)
    assert [name for name, _ in supernet.named_parameters() if name.startswith("arch")] == [
        "arch.cell/1",
        "arch.cell/2",
        "arch.width",
    ]
    first, second = supernet.network.first[0].conv, supernet.network.second[0].conv
    assert not torch.equal(first.weight, second.weight)
    one, two = (gradient_without(supernet, part) for part in ("second", "first"))
    both = gradient_without(supernet, None)
    assert torch.allclose(one + two, both, atol=1e-6)
    assert one.abs().max() > 1e-4
    assert two.abs().max() > 1e-4


def gradient_without(supernet: Supernet, part: str | None) -> Tensor:
    """Of the arch parameters that two chains share, where one chain sees them as a constant."""
    constant = supernet.arch["cell/1"].detach().softmax(0)
    supernet = copy.deepcopy(supernet)
    if part is not None:
        chain = getattr(supernet.network, part)
        chain[0].__dict__["_mixing"] = lambda label: constant
    supernet(IMAGE).square().sum().backward()
    gradient = supernet.arch["cell/1"].grad
    assert gradient is not None
    return gradient


def test_a_functional_call_mixes_by_the_parameters_it_is_given() -> None:
    supernet = Supernet(space)
    with torch.no_grad():
        expected = supernet(IMAGE)
        other = {"arch.cell/1": torch.tensor([3.0, 0.0, 0.0])}
        changed = torch.func.functional_call(supernet, other, (IMAGE,))
        assert not torch.allclose(changed, expected)
        assert torch.equal(supernet(IMAGE), expected)
        supernet.arch["cell/1"].copy_(other["arch.cell/1"])
        assert torch.equal(supernet(IMAGE), changed)


def test_mixing_weights_are_made_once_a_forward_pass() -> None:
    class Counting(nn.Module):
        calls = 0

        def forward(self, logits: Tensor) -> Tensor:
            self.calls += 1
            return logits.softmax(0)

    counting = Counting()
    Supernet(space, relaxation=counting)(IMAGE)
    assert counting.calls == 3


def test_a_part_of_the_network_mixes_by_the_current_arch_parameters() -> None:
    supernet = Supernet(space)
    x = supernet.network.stem(IMAGE)
    expected = supernet.network.first(x)
    supernet(IMAGE)
    assert torch.equal(supernet.network.first(x), expected)
    supernet.arch["cell/1"].data[0] = 1e4
    assert not torch.allclose(supernet.network.first(x), expected)
    assert torch.equal(supernet.network.first[0](x), supernet.network.first[0].conv(x))


def test_relaxations_by_name_and_as_modules() -> None:
    class Half(nn.Module):
        def forward(self, logits: Tensor) -> Tensor:
            return logits.softmax(0) / 2

    supernet = Supernet(space, relaxation=Half())
    assert supernet.mixing_weights()["width"].tolist() == [0.25, 0.25]
    with pytest.raises(UnknownNameError, match=r"unknown relaxation 'sofmax' .*softmax"):
        Supernet(space, relaxation="sofmax")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"space": "drats"}, r"unknown search space 'drats' \(did you mean 'darts'\?\)"),
        ({"space": build}, "must be given a search space or its name, got <function build"),
        ({"evaluation": "plan"}, r"unknown evaluation 'plan' \(did you mean 'plain'\?\); known: plain, planned"),
        ({"memory": "checkpoints"}, r"unknown memory 'checkpoints' \(did you mean 'checkpoint'\?\)"),
        ({"relaxation": 3}, r"relaxation must .*, got 3"),
        ({"relaxation": nn.Softmax}, r"relaxation must .*, got <class"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=message):
        Supernet(**{"space": space, **arguments})


def test_a_derived_network_keeps_the_leading_channels() -> None:
    supernet = Supernet(space)
    derived = supernet.derived(GENOTYPE)
    assert torch.equal(derived.narrow[0].weight, supernet.network.narrow[0].weight[:1])
    assert torch.equal(derived.narrow[0].bias, supernet.network.narrow[0].bias[:1])
    assert torch.equal(derived.narrow[2].weight, supernet.network.narrow[2].weight[:, :1])
    assert not any(name.startswith("first.1") for name in derived.state_dict())


def test_a_derived_network_does_not_share_weights() -> None:
    supernet = Supernet(space)
    derived = supernet.derived(GENOTYPE)
    derived.stem.weight.data.zero_()
    assert supernet.network.stem.weight.abs().sum() > 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_derived_network_has_the_dtype_and_mode(dtype: torch.dtype, training: bool) -> None:
    supernet = Supernet(space).to(dtype).train(training)
    supernet.network.stem.weight.data.div_(3)  # no float32 number
    derived = supernet.derived(GENOTYPE)
    assert torch.equal(derived.stem.weight, supernet.network.stem.weight)
    assert {parameter.dtype for parameter in derived.parameters()} == {dtype}
    assert {module.training for module in derived.modules()} == {training}


def test_derive_keeps_provenance_and_adds_margins() -> None:
    supernet = Supernet(space, channels=3)
    supernet.arch["cell/2"].data = torch.tensor([0.0, 1.0, 0.0])
    genotype = supernet.derive(Provenance(seed=7, source="here"))
    assert genotype.space == "test_supernet"
    assert genotype.options == {"channels": 3, "operations": "test_supernet"}
    assert genotype.choices == {"cell/1": "conv", "cell/2": "skip", "width": 1}
    assert genotype.provenance is not None
    assert (genotype.provenance.seed, genotype.provenance.source) == (7, "here")
    weight = torch.tensor([0.0, 1.0, 0.0]).softmax(0)
    assert genotype.provenance.margins == pytest.approx(
        {"cell/1": 0.0, "cell/2": (weight[1] - weight[0]).item(), "width": 0.0}
    )
    assert supernet.derive().choices == genotype.choices


@pytest.mark.parametrize("use", ["derived", "fixed"])
@pytest.mark.parametrize(
    ("genotype", "error", "message"),
    [
        (
            Genotype(space="other", choices=GENOTYPE.choices),
            SpaceError,
            "must be of space 'test_supernet', got 'other'",
        ),
        (
            Genotype(space="test_supernet", choices=GENOTYPE.choices, options={"channels": 5}),
            ConfigError,
            "operation weights cannot be inherited across other options: genotype channels=5, supernet 4",
        ),
        (
            Genotype(space="test_supernet", choices=GENOTYPE.choices, options={"chanels": 5}),
            ConfigError,
            r"unknown option of space 'test_supernet' 'chanels' \(did you mean 'channels'",
        ),
        (Genotype(space="test_supernet", choices={"cell/1": "conv", "width": 1}), SpaceError, "'cell/2'"),
        (Genotype(space="test_supernet", choices={**GENOTYPE.choices, "width": 2}), SpaceError, "'width'.* 2"),
    ],
)
def test_a_genotype_must_fit(use: str, genotype: Genotype, error: type[Exception], message: str) -> None:
    supernet = Supernet(space)
    with pytest.raises(error, match=message), _used(supernet, genotype, use):
        pass


@contextmanager
def _used(supernet: Supernet, genotype: Genotype, use: str) -> Iterator[None]:
    if use == "derived":
        supernet.derived(genotype)
        yield
    else:
        with supernet.fixed(genotype):
            yield


def test_all_other_options_are_named() -> None:
    genotype = Genotype(
        space="test_supernet",
        choices={},
        options={"channels": 5, "operations": {"conv": {"factory": "test_supernet_conv"}}},
    )
    from nas.space.operations import operation

    operation("test_supernet_conv")(_plain_conv)
    with pytest.raises(ConfigError, match=r"channels=5, supernet 4, operations=\{.*supernet 'test_supernet'"):
        Supernet(space).derived(genotype)


def _plain_conv(channels: int) -> nn.Module:
    return nn.Conv2d(channels, channels, 1)


def test_fixed_ends_with_its_context() -> None:
    supernet = Supernet(space).eval()
    other = Genotype(space="test_supernet", choices={**GENOTYPE.choices, "cell/1": "skip"})
    with torch.no_grad():
        before = supernet(IMAGE)
        with supernet.fixed(GENOTYPE):
            inside = supernet(IMAGE)
            with supernet.fixed(other):
                assert not torch.equal(supernet(IMAGE), inside)
            assert torch.equal(supernet(IMAGE), inside)
            assert supernet.mixing_weights()["cell/1"].tolist() == [1.0, 0.0, 0.0]
            assert supernet.derive().choices == GENOTYPE.choices
        assert torch.equal(supernet(IMAGE), before)
        with pytest.raises(KeyboardInterrupt), supernet.fixed(GENOTYPE):
            raise KeyboardInterrupt
        assert torch.equal(supernet(IMAGE), before)


def test_fixed_prunes_edges_and_restores_them() -> None:
    def nodes(choose: Chooser, /) -> nn.Module:
        # The edges are no decisions by themselves: only the node can leave one out.
        return Sum(choose.inputs("n", {0: nn.Identity, 1: nn.Tanh, 2: nn.Identity}, keep=1), 3)

    supernet = Supernet(SearchSpace("nodes", nodes))
    x = torch.ones(1, 1)
    assert supernet(x).item() == pytest.approx(1 + 0.9640275800758169 + 3)
    genotype = Genotype(space="nodes", choices={"n": (2,)})
    with supernet.fixed(genotype):
        assert supernet(x).item() == supernet.derived(genotype)(x).item() == 3
    assert supernet(x).item() == pytest.approx(1 + 0.9640275800758169 + 3)


def test_a_space_whose_weights_have_other_names_when_derived() -> None:
    def renaming(choose: Chooser, /) -> nn.Module:
        width = choose.width("w", (1, 2))
        return nn.Sequential(width, *(nn.Linear(2, 2) for _ in range(3 - width.channels)))

    supernet = Supernet(SearchSpace("renaming", renaming))
    with pytest.raises(SpaceError, match=r"space 'renaming' gives derived networks weights .*: 2\.bias, 2\.weight"):
        supernet.derived(Genotype(space="renaming", choices={"w": 1}))


def test_a_space_without_decisions_is_an_ordinary_network() -> None:
    supernet = Supernet(SearchSpace("plain", lambda choose: nn.Linear(2, 2)))
    genotype = supernet.derive()
    assert genotype.choices == {}
    assert torch.equal(supernet(torch.ones(1, 2)), supernet.derived(genotype)(torch.ones(1, 2)))
    nothing = Supernet(SearchSpace("nothing", lambda choose: nn.Identity()))
    assert nothing.derived(nothing.derive())(3) == 3


class Scaled(nn.Module):
    """Takes a tensor, and more by keyword."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.inner, self.factor = conv(), factor

    def forward(self, x: Tensor, *more: Tensor, shift: Tensor | None = None) -> Tensor:
        y = self.inner(x) * self.factor + sum(more)
        return y if shift is None else y + shift["by"]


class Conditioned(nn.Module):
    """Gives all its parts what it is given by keyword."""

    def __init__(self, choose: Chooser) -> None:
        super().__init__()
        candidates = {"one": lambda: Scaled(1.0), "two": lambda: Scaled(2.0)}
        self.mixed = choose("o", candidates)
        self.node = choose.inputs(
            "n", {0: lambda: choose("e0", candidates), 1: lambda: choose("e1", candidates)}, keep=1
        )
        self.cell = Cell(choose, "c", candidates, nodes=2, inputs=1, keep=1, output="last")
        self.chain = Chain(choose, "k", candidates, length=2)
        self.depth = choose.depth("d", (0, 2), lambda i: choose(f"b{i}", candidates))

    def forward(self, x: Tensor, *, shift: Tensor | None = None) -> Tensor:
        x = self.node([self.mixed(x, shift=shift), x], shift=shift)
        return self.depth(self.chain(self.cell(x, shift=shift), shift=shift), x, shift=shift)


@pytest.mark.parametrize("memory", ["keep", "checkpoint"])
@pytest.mark.parametrize("evaluation", ["plain", "planned"])
def test_keyword_inputs_reach_every_candidate(evaluation: Evaluation, memory: Memory) -> None:
    made = SearchSpace("keywords", lambda choose: Conditioned(choose))
    supernet = Supernet(made, evaluation=evaluation, memory=memory).double()
    for logits in supernet.arch.values():
        nn.init.normal_(logits)
    plain = Supernet(made, evaluation="plain").double()
    plain.load_state_dict(supernet.state_dict())
    x, by = picture().double(), picture(1).double().requires_grad_()
    found, expected = (s(x=x, shift={"by": by}) for s in (supernet, plain))
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    both = [
        torch.autograd.grad(out.square().sum(), [by, *s.parameters()], allow_unused=True, materialize_grads=True)
        for out, s in ((found, supernet), (expected, plain))
    ]
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(*both, strict=True))
    assert not torch.allclose(supernet(x), found, rtol=1e-3)
    genotype = random_genotype(supernet, 3)
    derived = supernet.eval().derived(genotype)
    with supernet.fixed(genotype):
        assert torch.allclose(supernet(x, shift={"by": by}), derived(x, shift={"by": by}), rtol=1e-12, atol=1e-12)


def test_networks_take_and_return_what_they_like() -> None:
    class Two(nn.Module):
        def __init__(self, choose: Chooser) -> None:
            super().__init__()
            self.one = choose("a", {"x": nn.Identity, "y": nn.Tanh})

        def forward(self, x: Tensor, scale: float, names: list[str]) -> dict[str, Any]:
            return {name: self.one(x) * scale for name in names}

    found = Supernet(SearchSpace("two", lambda choose: Two(choose)))(torch.zeros(1), 2.0, ["p", "q"])
    assert list(found) == ["p", "q"]
