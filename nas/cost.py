"""What networks cost: parameters, or floating-point operations (1 multiply-add = 2 FLOPs), counted on the meta device.

`measure` is exact for one network. `costs` takes a whole search space apart, once: then `Cost.of` prices a genotype by
a sum, and `Cost.expected` a supernet by a differentiable one. FLOPs are those of convolutions, matrix products and
attention in eval mode, as `torch.utils.flop_counter` counts them, for all of the batch of the example inputs.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from nas.choose import Relaxed
from nas.errors import ConfigError, NASError, SpaceError, UnknownNameError
from nas.genotype import Choice, Decision, Genotype
from nas.interactions import Changes, changes
from nas.mixed import ChosenDepth, ChosenWidth, Decided, Node
from nas.space import Description, find_space

Unit = Literal["parameters", "flops"]

CONVENTION = "1 multiply-add = 2 FLOPs"
"""What a number of FLOPs is shown with: others count a multiply-add as one."""

Place = tuple[tuple[str, str | int], ...]
"""Where in a space something is: the (label, candidate) pairs it lies inside of, outermost first."""


class Part(NamedTuple):
    """A module, by where it is and by its path in the network."""

    place: Place
    path: str

    def __str__(self) -> str:
        return f"the module '{self.path}'" if self.path else "the network itself"


@dataclass(frozen=True)
class Cost:
    """What the parts of a search space cost; made by `costs`."""

    decisions: Mapping[str, Decision]
    base: float
    """The cost of what lies outside every decision, at the largest widths."""
    terms: Mapping[tuple[Place, str], tuple[float, ...]]
    """What each candidate costs of a decision (its label) at a place, less the decisions inside it: these have terms of
    their own. A depth costs its blocks. All of it is at the largest widths."""
    widths: Mapping[Place, Changes] = field(default_factory=dict)
    """What other widths add at a place, by the label of one or of two: the cost of a layer is bilinear in the numbers
    of its channels, in and out."""

    @cached_property
    def candidates(self) -> dict[str, tuple[float, ...]]:
        """What each candidate of a decision costs, by label, over all its places: to settle ties, or to show.

        A width costs what it adds to the cost at the largest widths, so mostly less than 0.
        """
        total = {label: (0.0,) * len(d.candidates) for label, d in self.decisions.items() if d.kind == "width"}
        alone = [(labels[0], t.tolist()) for c in self.widths.values() for labels, t in c.items() if len(labels) == 1]
        for label, costs in (*((label, costs) for (_, label), costs in self.terms.items()), *alone):
            total[label] = tuple(map(sum, zip(total.get(label, (0.0,) * len(costs)), costs, strict=True)))
        return total

    @cached_property
    def uniform(self) -> float:
        """The expected cost where all mixing weights of a decision are equal."""
        counts = {label: len(d.candidates) for label, d in self.decisions.items() if d.kind != "inputs"}
        return self.expected({n: torch.full((k,), 1 / k, dtype=torch.double) for n, k in counts.items()}).item()

    def of(self, choices: Mapping[str, Choice]) -> float:
        """The cost of the network that these choices derive: `measure` without building it.

        Raises `SpaceError` for a choice that is missing or impossible.
        """

        def taken(label: str) -> list[bool]:
            decision, choice = self.decisions[label], choices.get(label)
            if choice is None or not decision.accepts(choice):
                raise SpaceError(f"the cost of these choices is unknown: '{label}' cannot be {choice!r}")
            return [c in choice if isinstance(choice, tuple) else c == choice for c in decision.candidates]

        def built(place: Place) -> bool:
            return all(any(taken(parent)[i] for i in self._around(parent, inside)) for parent, inside in place)

        own = [
            cost
            for (place, label), costs in self.terms.items()
            if built(place)
            for cost, here in zip(costs, taken(label), strict=True)
            if here
        ]
        changed = [
            table[tuple(taken(label).index(True) for label in labels)].item()
            for place, added in self.widths.items()
            if built(place)
            for labels, table in added.items()
        ]
        return self.base + sum(own) + sum(changed)

    def expected(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The expected cost, a differentiable scalar, where every decision is drawn by its mixing weights.

        Equals `of` at one-hot weights, but that all in-edges of a node count, as a supernet computes them all.

        Args:
            weights: the mixing weights `(candidates,)` of every decision but of in-edges, by label.
        """
        chances: dict[Place, Tensor] = {(): next(iter(weights.values()), torch.zeros(())).new_ones(())}

        def chance(place: Place) -> Tensor:
            if place not in chances:
                *outer, (label, inside) = place
                within = weights[label][self._around(label, inside)].sum() if label in weights else 1.0
                chances[place] = chance(tuple(outer)) * within
            return chances[place]

        total = self.base * chances[()]
        for (place, label), costs in self.terms.items():
            own = weights[label] @ weights[label].new_tensor(costs) if label in weights else sum(costs)
            total = total + chance(place) * own
        for place, added in self.widths.items():
            for labels, table in added.items():
                mean = table.to(total)
                for label in reversed(labels):
                    mean = mean @ weights[label]
                total = total + chance(place) * mean
        return total

    def _around(self, label: str, inside: str | int) -> list[int]:
        """The candidates, by position, that hold a thing inside (label, inside): for a block every depth beyond it."""
        decision = self.decisions[label]
        if decision.kind == "depth":
            return [i for i, count in enumerate(_sizes(decision)) if count > int(inside)]
        return [i for i, candidate in enumerate(decision.candidates) if candidate == inside]


def costs(description: Description, unit: Unit = "parameters", inputs: Sequence[Any] | None = None) -> Cost:
    """What every candidate of a search space costs.

    A module that several places share counts, in parameters, at the outermost of them, and in FLOPs wherever it is
    called.

    Args:
        description: the space with its options, from `SearchSpace.describe`.
        inputs: example inputs of the network to count FLOPs for; only their shapes and types matter.

    Raises `ConfigError` where FLOPs are asked for without inputs, or of a network that cannot run on the meta device,
    and where more than two widths change the cost of one module together; `SpaceError` where the space cannot be built
    with some of its widths.
    """
    decisions, of_parameters = description.decisions, _known(unit) == "parameters"
    sizes = {label: _sizes(decision) for label, decision in decisions.items() if decision.kind == "width"}
    largest = {label: max(widths) for label, widths in sizes.items()}

    def count(widths: Mapping[str, int]) -> dict[Part, float]:
        if of_parameters and widths == largest:
            return _parameters(description.network)
        try:
            with torch.device("meta"):
                network = description.space(_Whole(widths), **description.options)
        except NASError:
            raise
        except Exception as error:
            if widths == largest:
                raise
            listed = ", ".join(f"'{label}' = {size}" for label, size in widths.items())
            raise SpaceError(
                f"space '{description.space.name}' cannot be built with {listed}:"
                f" {type(error).__name__}: {' '.join(str(error).split())}"
            ) from error
        return _parameters(network) if of_parameters else _flops(network, inputs)

    whole, changed = changes(count, sizes)
    spent: dict[Place, float] = defaultdict(float)
    for (place, _), cost in whole.items():
        spent[place] += cost
    terms: dict[tuple[Place, str], tuple[float, ...]] = {}
    for place, _, module in _walk(description.network):
        if isinstance(module, Decided) and not isinstance(module, ChosenWidth):
            terms[place, module.label] = _own(decisions[module.label], place, spent)
    widths: dict[Place, Changes] = defaultdict(dict)
    for (place, _), added in changed.items():
        for labels, table in added.items():
            widths[place][labels] = widths[place].get(labels, 0.0) + table
    return Cost(decisions, spent[()], terms, dict(widths))


def measure(network: nn.Module | Genotype, unit: Unit = "parameters", inputs: Sequence[Any] | None = None) -> float:
    """The exact cost of a network, or of the one that a genotype of a registered space describes.

    `inputs` and errors are those of `costs`. The network stays as it is: FLOPs are counted on a copy without values.
    """
    if isinstance(network, Genotype):
        with torch.device("meta"):
            network = find_space(network.space).derived(network)
    if _known(unit) == "parameters":
        return float(sum(parameter.numel() for parameter in network.parameters()))
    return sum(_flops(copy.deepcopy(network).to("meta"), inputs).values())


class _Whole(Relaxed):
    """Builds every candidate, to run on the meta device, with the given widths."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__(lambda label: torch.ones(len(self.decisions[label].candidates), device="meta"))
        self._widths = widths

    def _width(self, decision: Decision, dim: int) -> ChosenWidth:
        return ChosenWidth(decision.label, self._widths[decision.label], dim)


class Size(NamedTuple):
    """How many parameters a network has; as a text, both numbers if they differ."""

    evaluation: int
    """Without the parts that only training uses: those that a module names in an attribute `training_only`."""
    training: int

    def __str__(self) -> str:
        more = "" if self.evaluation == self.training else f" ({self.training:,} with what only training uses)"
        return f"{self.evaluation:,}{more}"


def size(network: nn.Module | Genotype) -> Size:
    """The parameters of a network, or of the one that a genotype of a registered space describes."""
    if isinstance(network, Genotype):
        with torch.device("meta"):
            network = find_space(network.space).derived(network)
    named = [(module, path) for module in network.modules() for path in getattr(module, "training_only", ())]
    parts = [part for module, path in named if isinstance(part := attrgetter(path)(module), nn.Module)]
    left_out = {parameter for part in parts for parameter in part.parameters()}
    whole = int(measure(network))
    return Size(whole - sum(parameter.numel() for parameter in left_out), whole)


def _known(unit: Unit) -> Unit:
    if unit not in get_args(Unit):
        raise UnknownNameError("unit of cost", unit, get_args(Unit))
    return unit


def _sizes(decision: Decision) -> list[int]:
    return [int(candidate) for candidate in decision.candidates]


def _walk(module: nn.Module, place: Place = (), path: str = "") -> Iterator[tuple[Place, str, nn.Module]]:
    """Every module of a network, with each place where it is, and each path."""
    yield place, path, module
    for name, child in module.named_children():
        yield from _walk(child, _within(place, module, name), f"{path}.{name}" if path else name)


def _within(place: Place, module: nn.Module, name: str) -> Place:
    """The place of a child of a module at `place`."""
    if not isinstance(module, Decided):
        return place
    return (*place, (module.label, int(name) if isinstance(module, Node | ChosenDepth) else name))


def _own(decision: Decision, place: Place, spent: Mapping[Place, float]) -> tuple[float, ...]:
    """What each candidate of the decision at `place` costs by itself."""
    if decision.kind == "depth":
        blocks = [spent.get((*place, (decision.label, i)), 0.0) for i in range(max(_sizes(decision)))]
        return tuple(sum(blocks[:count]) for count in _sizes(decision))
    return tuple(spent.get((*place, (decision.label, candidate)), 0.0) for candidate in decision.candidates)


def _parameters(network: nn.Module) -> dict[Part, float]:
    """The parameters that each module has of its own, those that several share at the outermost of their places."""
    outermost: dict[nn.Parameter, Part] = {}
    for place, path, module in sorted(_walk(network), key=lambda found: len(found[0])):
        for parameter in module.parameters(recurse=False):
            outermost.setdefault(parameter, Part(place, path))
    spent: dict[Part, float] = defaultdict(float)
    for parameter, part in outermost.items():
        spent[part] += parameter.numel()
    return spent


def _flops(network: nn.Module, inputs: Sequence[Any] | None) -> dict[Part, float]:
    """What one forward pass of a network on the meta device spends in each module itself, where it is called."""
    if inputs is None:
        raise ConfigError("FLOPs depend on the input: give example inputs")
    counter = FlopCounterMode(display=False)
    spent: dict[Part, float] = defaultdict(float)
    running = [(Part((), ""), network)]
    counted = 0

    def settle() -> None:
        nonlocal counted
        total = counter.get_total_flops()
        spent[running[-1][0]] += total - counted
        counted = total

    def enter(module: nn.Module, path: str) -> None:
        settle()
        part, caller = running[-1]
        children = caller.named_children() if isinstance(caller, Decided) else ()
        names = [name for name, child in children if child is module]
        running.append((Part(_within(part.place, caller, names[0]) if names else part.place, path), module))

    def leave() -> None:
        settle()
        running.pop()

    hooks = []
    for path, module in network.named_modules():
        hooks += [
            module.register_forward_pre_hook(lambda module, _, path=path: enter(module, path)),
            module.register_forward_hook(lambda *_: leave()),
        ]
    try:
        with torch.no_grad(), counter:
            network.eval()(*tree_map_only(Tensor, lambda tensor: tensor.to("meta"), tuple(inputs)))
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"FLOPs are counted on the meta device, where this network fails: {reason}") from error
    finally:
        for hook in hooks:
            hook.remove()
    settle()
    return spent
