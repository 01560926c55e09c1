"""What the candidates of a search space cost, so that pricing a genotype is a sum.

`costs` takes a whole space apart, once. Then `Cost.of` prices a genotype, and `Cost.expected` a supernet by a
differentiable sum. Costs and conventions are those of `nas.cost.network_cost.measure`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas.cost.interactions import Changes, changes
from nas.cost.meter import Call, own_flops
from nas.cost.network_cost import Unit, require_unit
from nas.errors import NASError, SpaceError
from nas.genotype.decision import Choice, Decision, Share
from nas.space.chooser import Relaxed
from nas.space.definition import Description
from nas.space.mixed import ChosenDepth, ChosenWidth, Decided, Node, candidates_of

Place = tuple[tuple[str, str | int], ...]
"""Where something is in a space: the (label, candidate) pairs around it, outermost first."""


class Part(NamedTuple):
    """A module, by its place and by its path in the network."""

    place: Place
    path: str

    def __str__(self) -> str:
        return f"the module '{self.path}'" if self.path else "the network itself"


@dataclass(frozen=True, eq=False)
class Cost:
    """The costs of the parts of a search space; made by `costs`. Equal to itself only."""

    decisions: Mapping[str, Decision]
    base: float
    """The cost of everything outside all decisions, at the largest widths."""
    terms: Mapping[tuple[Place, str], tuple[float, ...]]
    """The own cost of each candidate of a decision at a place, at the largest widths. Decisions inside a candidate have
    their own terms. A depth costs its blocks."""
    widths: Mapping[Place, Changes] = field(default_factory=dict)
    """What other widths add at a place, by one label or two: the cost of a layer is bilinear in its channels, in and
    out."""

    @cached_property
    def candidates(self) -> dict[str, tuple[float, ...]]:
        """What each candidate of a decision costs, by label, summed over its places.

        A width costs what it adds to the cost at the largest widths, so usually less than 0.
        """
        total = {label: (0.0,) * len(d.candidates) for label, d in self.decisions.items() if d.kind == "width"}
        alone = [(labels[0], t.tolist()) for c in self.widths.values() for labels, t in c.items() if len(labels) == 1]
        for label, costs in (*((label, costs) for (_, label), costs in self.terms.items()), *alone):
            total[label] = tuple(map(sum, zip(total.get(label, (0.0,) * len(costs)), costs, strict=True)))
        return total

    @cached_property
    def uniform(self) -> float:
        """The expected cost if all mixing weights of each decision are equal."""
        counts = {label: len(d.candidates) for label, d in self.decisions.items() if d.kind != "inputs"}
        return self.expected({n: torch.full((k,), 1 / k, dtype=torch.double) for n, k in counts.items()}).item()

    def of(self, choices: Mapping[str, Choice]) -> float:
        """Return the cost of the network that these choices derive, as `measure` would, without building it.

        Raises:
            SpaceError: a choice is missing or impossible.
        """

        for label, decision in self.decisions.items():
            if decision.active(choices) and (label not in choices or not decision.accepts(choices[label])):
                raise SpaceError(f"choices: '{label}' must be {decision.expected}, got {choices.get(label)!r}")
        return sum(share.of(choices) for share in self.shares)

    @cached_property
    def shares(self) -> tuple[Share, ...]:
        """The cost of a derived network as a sum: that of its base, of each decision at each place, of each width or
        pair of widths at each place."""

        def taken(label: str, choices: Mapping[str, Choice]) -> list[int]:
            choice = choices.get(label)
            chosen = choice if isinstance(choice, tuple) else (choice,)
            return [i for i, candidate in enumerate(self.decisions[label].candidates) if candidate in chosen]

        def built(place: Place, choices: Mapping[str, Choice]) -> bool:
            return all({*taken(parent, choices)} & {*self._around(parent, inside)} for parent, inside in place)

        def own(place: Place, label: str, costs: Sequence[float], choices: Mapping[str, Choice]) -> float:
            return sum(costs[i] for i in taken(label, choices)) if built(place, choices) else 0.0

        def changed(place: Place, labels: Sequence[str], table: Tensor, choices: Mapping[str, Choice]) -> float:
            sizes = [i for label in labels for i in taken(label, choices)]
            return table[tuple(sizes)].item() if len(sizes) == len(labels) and built(place, choices) else 0.0

        def share(place: Place, labels: Sequence[str], of: Callable[..., float], *known: Any) -> Share:
            return Share(tuple(dict.fromkeys([*(parent for parent, _ in place), *labels])), partial(of, place, *known))

        found = [Share((), lambda choices: self.base)]
        found += [share(place, (label,), own, label, costs) for (place, label), costs in self.terms.items()]
        for place, added in self.widths.items():
            found += [share(place, labels, changed, labels, table) for labels, table in added.items()]
        return tuple(found)

    def expected(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the expected cost if every decision is drawn by its mixing weights, a differentiable scalar.

        At one-hot weights it equals `of`, except that all in-edges of a node count, because a supernet computes them.

        Args:
            weights: the mixing weights `(candidates,)` of every decision except those of in-edges, by label.
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
        """The candidates, by position, that include (label, inside): for a block, every depth beyond it."""
        decision = self.decisions[label]
        if decision.kind == "depth":
            return [i for i, count in enumerate(_sizes(decision)) if count > int(inside)]
        return [i for i, candidate in enumerate(decision.candidates) if candidate == inside]


def costs(description: Description, unit: Unit = "parameters", inputs: Sequence[Any] | None = None) -> Cost:
    """Return what every candidate of a search space costs.

    The cost of a candidate is its own share (see `nas.cost.meter`). Parameters that modules at several places share
    count once, at the outermost of these places, or the first of several. If the outermost places are candidates of one
    operation decision, of which a network has one, the parameters count at each of them.

    Args:
        description: the space with its options, from `SearchSpace.describe`.
        unit: `parameters`, or `flops` of one forward pass.
        inputs: example inputs of the network to count FLOPs for; only their shapes and types matter.

    Raises:
        UnknownNameError: the unit is unknown.
        ConfigError: FLOPs need inputs, or the network cannot run on them on the meta device, or more than two widths
            together change the cost of one module.
        SpaceError: the space cannot be built with some of its widths.
    """
    decisions, of_parameters = description.decisions, require_unit(unit) == "parameters"
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


class _Whole(Relaxed):
    """Builds every candidate on the meta device, with the given widths."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__(lambda label: torch.ones(len(self.decisions[label].candidates), device="meta"))
        self._widths = widths

    def _width(self, decision: Decision, dim: int) -> ChosenWidth:
        return ChosenWidth(decision.label, self._widths[decision.label], dim)


def _sizes(decision: Decision) -> list[int]:
    return [int(candidate) for candidate in decision.candidates]


def _walk(module: nn.Module, place: Place = (), path: str = "") -> Iterator[tuple[Place, str, nn.Module]]:
    """Every module of a network, at each of its places and paths."""
    yield place, path, module
    children = candidates_of(module) if isinstance(module, Decided) else dict(module.named_children())
    for name, child in children.items():
        yield from _walk(child, _within(place, module, name), f"{path}.{name}" if path else name)


def _within(place: Place, module: nn.Module, name: str) -> Place:
    """The place of a child of a module at `place`."""
    if not isinstance(module, Decided):
        return place
    return (*place, (module.label, int(name) if isinstance(module, Node | ChosenDepth) else name))


def _own(decision: Decision, place: Place, spent: Mapping[Place, float]) -> tuple[float, ...]:
    """The own cost of each candidate of the decision at `place`."""
    if decision.kind == "depth":
        blocks = [spent.get((*place, (decision.label, i)), 0.0) for i in range(max(_sizes(decision)))]
        return tuple(sum(blocks[:count]) for count in _sizes(decision))
    return tuple(spent.get((*place, (decision.label, candidate)), 0.0) for candidate in decision.candidates)


def _parameters(network: nn.Module) -> dict[Part, float]:
    """The number of parameters of each module itself; what several modules share counts at the outermost place."""
    outermost: dict[nn.Parameter, dict[Place, Part]] = defaultdict(dict)
    for place, path, module in sorted(_walk(network), key=lambda found: len(found[0])):
        for parameter in module.parameters(recurse=False):
            parts = outermost[parameter]
            if not parts or _alternatives(next(iter(parts)), place):
                parts.setdefault(place, Part(place, path))
    spent: dict[Part, float] = defaultdict(float)
    for parameter, parts in outermost.items():
        for part in parts.values():
            spent[part] += parameter.numel()
    return spent


def _alternatives(a: Place, b: Place) -> bool:
    """Whether two places are candidates of one operation decision, of which a network has one."""
    if not len(a) == len(b) > 0 or a[:-1] != b[:-1]:
        return False
    return a[-1][0] == b[-1][0] and isinstance(b[-1][1], str)


def _flops(network: nn.Module, inputs: Sequence[Any] | None) -> dict[Part, float]:
    """The own share of FLOPs of each module of a network on the meta device, at each place where it is called."""
    paths = {module: path for path, module in network.named_modules()}

    def part(caller: Call[Part], module: nn.Module) -> Part:
        place, name = caller.key.place, caller.name_of(module)
        if caller.module is not None and name is not None:
            place = _within(place, caller.module, name)
        return Part(place, paths[module])

    return own_flops(network, inputs, paths, part, Part((), ""))
