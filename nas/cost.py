"""What networks cost: parameters, or floating-point operations (1 multiply-add = 2 FLOPs), counted on the meta device.

`measure` is exact for one network. `costs` takes a whole search space apart, once: then `Cost.of` prices a genotype by
a sum, and `Cost.expected` a supernet by a differentiable one. FLOPs are those of convolutions, matrix products and
attention in eval mode, as `torch.utils.flop_counter` counts them, for all of the batch of the example inputs.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from nas.choose import Building, Derived, Relaxed
from nas.errors import ConfigError, SpaceError, UnknownNameError
from nas.genotype import Choice, Decision, Genotype
from nas.mixed import ChosenDepth, ChosenWidth, Decided, Node
from nas.space import Description, find_space

Unit = Literal["parameters", "flops"]
Place = tuple[tuple[str, str | int], ...]
"""Where in a space something is: the (label, candidate) pairs it lies inside of, outermost first."""


@dataclass(frozen=True)
class Cost:
    """What the parts of a search space cost; made by `costs`."""

    decisions: Mapping[str, Decision]
    base: float
    """The cost of what lies outside every decision, at the largest widths."""
    terms: Mapping[tuple[Place, str], tuple[float, ...]]
    """What each candidate costs of a decision (its label) at a place, less the decisions inside it: these have terms of
    their own. A depth costs its blocks; a width what it adds to the cost at the largest width, so at most 0."""

    @cached_property
    def candidates(self) -> dict[str, tuple[float, ...]]:
        """What each candidate of a decision costs, by label, over all its places: to settle ties, or to show."""
        total: dict[str, tuple[float, ...]] = {}
        for (_, label), costs in self.terms.items():
            total[label] = tuple(map(sum, zip(total.get(label, (0.0,) * len(costs)), costs, strict=True)))
        return total

    @cached_property
    def uniform(self) -> float:
        """The expected cost where all mixing weights of a decision are equal."""
        counts = {label: len(d.candidates) for label, d in self.decisions.items() if d.kind != "inputs"}
        return self.expected({n: torch.full((k,), 1 / k, dtype=torch.double) for n, k in counts.items()}).item()

    def of(self, choices: Mapping[str, Choice]) -> float:
        """The cost of the network that these choices derive: `measure` without building it.

        With width decisions an approximation: each counts as if it were the only one, and every other decision took its
        first candidate. Raises `SpaceError` for a choice that is missing or impossible.
        """

        def taken(label: str) -> list[bool]:
            decision, choice = self.decisions[label], choices.get(label)
            if choice is None or not decision.accepts(choice):
                raise SpaceError(f"the cost of these choices is unknown: '{label}' cannot be {choice!r}")
            return [c in choice if isinstance(choice, tuple) else c == choice for c in decision.candidates]

        return self.base + sum(
            cost
            for (place, label), costs in self.terms.items()
            if all(any(taken(parent)[i] for i in self._around(parent, inside)) for parent, inside in place)
            for cost, here in zip(costs, taken(label), strict=True)
            if here
        )

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
        return total

    def _around(self, label: str, inside: str | int) -> list[int]:
        """The candidates, by position, that hold a thing inside (label, inside): for a block every depth beyond it."""
        decision = self.decisions[label]
        if decision.kind == "depth":
            return [i for i, count in enumerate(_sizes(decision)) if count > int(inside)]
        return [i for i, candidate in enumerate(decision.candidates) if candidate == inside]


def costs(description: Description, unit: Unit = "parameters", inputs: Sequence[Any] | None = None) -> Cost:
    """What every candidate of a search space costs.

    A module or parameter that several places share counts at the outermost of them.

    Args:
        description: the space with its options, from `SearchSpace.describe`.
        inputs: example inputs of the network to count FLOPs for; only their shapes and types matter.

    Raises `ConfigError` where FLOPs are asked for without inputs, or of a network that cannot run on the meta device.
    """
    decisions, of_parameters = description.decisions, _known(unit) == "parameters"
    network = description.network if of_parameters else _built(description, _Whole())  # what is described does not run
    places: dict[nn.Module, Place] = {}
    for place, module in sorted(_walk(network), key=lambda pair: len(pair[0])):
        places.setdefault(module, place)
    spent = _parameters(places) if of_parameters else _flops(network, inputs, places)
    terms: dict[tuple[Place, str], tuple[float, ...]] = {}
    widths: dict[str, Place] = {}
    for module, place in places.items():
        if isinstance(module, ChosenWidth):
            widths.setdefault(module.label, place)
        elif isinstance(module, Decided):
            terms[place, module.label] = _own(decisions[module.label], place, spent)
    for label, place in widths.items():
        sizes = _sizes(decisions[label])
        fillings = [_Filled({**dict(place), label: size}) for size in sizes]
        measured = [measure(_built(description, filled), unit, inputs) for filled in fillings]
        terms[place, label] = tuple(cost - measured[sizes.index(max(sizes))] for cost in measured)
    return Cost(decisions, spent[()], terms)


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
    """Builds every candidate, to run on the meta device; widths are the largest."""

    def __init__(self) -> None:
        super().__init__(lambda label: torch.ones(len(self.decisions[label].candidates), device="meta"))

    def _width(self, decision: Decision, dim: int) -> ChosenWidth:
        return ChosenWidth(decision.label, max(_sizes(decision)), dim)


class _Filled(Derived):
    """Derives a network from some choices; other decisions take the largest width or depth, or the first candidates."""

    def __init__(self, chosen: Mapping[str, str | int]) -> None:
        super().__init__(Genotype(space="", choices={}))
        self._chosen = chosen

    def _choice(self, decision: Decision) -> Choice:
        chosen = self._chosen.get(decision.label)
        if decision.kind == "inputs":
            return tuple(sorted(sorted(_sizes(decision), key=lambda source: source != chosen)[: decision.keep]))
        if decision.kind == "depth" or (decision.kind == "width" and chosen is None):
            return max(_sizes(decision))
        return decision.candidates[0] if chosen is None else chosen


def _built(description: Description, choose: Building) -> nn.Module:
    with torch.device("meta"):
        return description.space(choose, **description.options)


def _known(unit: Unit) -> Unit:
    if unit not in get_args(Unit):
        raise UnknownNameError("unit of cost", unit, get_args(Unit))
    return unit


def _sizes(decision: Decision) -> list[int]:
    return [int(candidate) for candidate in decision.candidates]


def _walk(module: nn.Module, place: Place = ()) -> Iterator[tuple[Place, nn.Module]]:
    """Every module of a network, with each place where it is."""
    yield place, module
    for name, child in module.named_children():
        inside = place
        if isinstance(module, Decided):
            inside = (*place, (module.label, int(name) if isinstance(module, Node | ChosenDepth) else name))
        yield from _walk(child, inside)


def _own(decision: Decision, place: Place, spent: Mapping[Place, float]) -> tuple[float, ...]:
    """What each candidate of the decision at `place` costs by itself."""
    if decision.kind == "depth":
        blocks = [spent.get((*place, (decision.label, i)), 0.0) for i in range(max(_sizes(decision)))]
        return tuple(sum(blocks[:count]) for count in _sizes(decision))
    return tuple(spent.get((*place, (decision.label, candidate)), 0.0) for candidate in decision.candidates)


def _parameters(places: Mapping[nn.Module, Place]) -> dict[Place, float]:
    outermost: dict[nn.Parameter, Place] = {}
    for module, place in places.items():
        for parameter in module.parameters(recurse=False):
            outermost.setdefault(parameter, place)
    spent: dict[Place, float] = defaultdict(float)
    for parameter, place in outermost.items():
        spent[place] += parameter.numel()
    return spent


def _flops(
    network: nn.Module, inputs: Sequence[Any] | None, places: Mapping[nn.Module, Place] | None = None
) -> dict[Place, float]:
    """What one forward pass of a network on the meta device spends at each place; all of it at () without `places`."""
    if inputs is None:
        raise ConfigError("FLOPs depend on the input: give example inputs")
    counter = FlopCounterMode(display=False)
    spent: dict[Place, float] = defaultdict(float)
    inside: list[Place] = [()]
    counted = 0

    def settle() -> None:
        nonlocal counted
        total = counter.get_total_flops()
        spent[inside[-1]] += total - counted
        counted = total

    def enter(place: Place) -> None:
        settle()
        inside.append(place)

    def leave() -> None:
        settle()
        inside.pop()

    for module, place in (places or {}).items():
        module.register_forward_pre_hook(lambda *_, place=place: enter(place))
        module.register_forward_hook(lambda *_: leave())
    try:
        with torch.no_grad(), counter:
            network.eval()(*tree_map_only(Tensor, lambda tensor: tensor.to("meta"), tuple(inputs)))
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"FLOPs are counted on the meta device, where this network fails: {reason}") from error
    settle()
    return spent
