"""Planned evaluation of a cell: node by node, all edges that leave a node at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from nas.errors import SpaceError
from nas.kernels.memory_format import by_hand, inside, is_last, laid_out
from nas.kernels.torch_internals import has_global_hooks, tables_of, transforms_active
from nas.planner.assumptions import Assumptions
from nas.planner.batched_layers import Wide, as_it_is, run_batched
from nas.planner.known_layers import Layers, altered, layers_of
from nas.planner.out_edges import OutEdges
from nas.planner.running_sum import RunningSum
from nas.space.cell import Cell
from nas.space.inplace import Unchanged, countable
from nas.space.mixed import MixedOperation, Node, Sampled, candidates_of, mixing_of, silently
from nas.space.partial import PartialOperation, groups_of, joined, passed, split

Edge = tuple[int, nn.Module]
"""The number of the node that an edge leads to, counted from 0 without the inputs, and the edge."""


def plan_cells(network: nn.Module) -> None:
    """Make the cells of a network evaluate by plan."""
    for module in network.modules():
        if isinstance(module, Cell):
            module.evaluation = PlannedCell(module)


class PlannedCell:
    """Evaluates a cell faster than `Cell.plain`, with equal results; refers to its modules and holds no tensors.

    The first evaluation makes the plan. If an assumption about the modules no longer holds, or their mode changes, the
    next evaluation makes another. Some cells are evaluated plainly: those with a node that is not the sum of its edges
    or with statistics at several places, and all cells while a global hook is registered or a transform of `torch.func`
    runs.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self._survey: _Survey | None = None
        self._plans: dict[tuple[object, ...], _Plan] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without plans, which refer to the modules of one cell."""
        return {"cell": self.cell, "_survey": None, "_plans": {}}

    def __call__(self, inputs: Sequence[Tensor], **keywords: Any) -> list[Tensor]:
        # Layers of a candidate take no keywords. The outputs of a plan lie channels last, which is safe only inside of
        # `channels_last`, hence not if a part of a supernet is called alone.
        if keywords or (any(map(is_last, inputs)) and not inside()):
            return self.cell.plain(inputs, **keywords)
        try:
            with by_hand():
                states = self._states(inputs)
        except (SpaceError, RuntimeError):
            self.cell.plain(inputs)  # fails too, with an error that names the candidates
            raise
        return self.cell.plain(inputs) if states is None else states

    def _states(self, inputs: Sequence[Tensor]) -> list[Tensor] | None:
        """Return the states, or None if the cell must be evaluated plainly."""
        if has_global_hooks() or transforms_active():
            return None
        if self._survey is None or not self._survey.assumed.holds():
            self._survey = _Survey(self.cell)
            self._plans.clear()
        survey = self._survey
        weights: dict[nn.Module, Tensor | Sampled] = {edge: mixing_of(edge) for edge in survey.edges}
        if not survey.usual or survey.ties_buffers():
            return None
        if any(isinstance(weight, Sampled) for weight in weights.values()):
            return survey.run_sampled(inputs, weights)  # one candidate per edge needs no plan
        modes = (*(node.kept for node in survey.nodes), *(norm.training for norm in survey.norms))
        if modes not in self._plans:
            self._plans[modes] = _Plan(survey.nodes, self.cell.inputs)
        return self._plans[modes].run(inputs, cast(dict[nn.Module, Tensor], weights))


class _Survey:
    """Modules of a cell, valid as long as the assumptions about them hold."""

    def __init__(self, cell: Cell) -> None:
        modules = list(cell.modules())
        self.nodes = [node for node in cell.nodes if type(node) is Node]
        places = Counter(id(m) for _, m in cell.named_modules(remove_duplicate=False) if tables_of(m).buffers)
        usual = len(self.nodes) == len(cell.nodes) and not any(map(altered, self.nodes))
        edges = [edge for node in self.nodes for edge in candidates_of(node).values()]
        self.edges = [
            e for e in edges if isinstance(e, MixedOperation) and type(e) in (MixedOperation, PartialOperation)
        ]
        groups = {groups_of(edge) for edge in self.edges if isinstance(edge, PartialOperation)}
        self.usual = usual and all(count == 1 for count in places.values()) and len(groups) < 2
        """Whether every node is the sum of its edges, all partial ones have equal groups, and no module with buffers
        lies at two places."""
        self.norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
        self._layers: dict[nn.Module, Layers | None] = {}
        self._buffers = [tables_of(module).buffers for module in modules if tables_of(module).buffers]
        self.assumed = Assumptions(modules)

    def ties_buffers(self) -> bool:
        """Return whether two modules share a buffer, so that the order of their updates matters."""
        buffers = [id(b) for table in self._buffers for b in table.values() if b is not None]
        return len(set(buffers)) != len(buffers)

    def run_sampled(self, inputs: Sequence[Tensor], weights: Mapping[nn.Module, Tensor | Sampled]) -> list[Tensor]:
        """Return the states, from the one sampled candidate of each edge."""
        states = [countable(laid_out(x)) for x in inputs]
        unchanged = Unchanged(*states)
        for node in self.nodes:
            edges = [(int(s), edge) for s, edge in candidates_of(node).items() if int(s) in node.kept]
            factors = node.factors()
            total = RunningSum(self._output(e, states[s], weights.get(e), factors.get(s)) for s, e in edges)
            states.append(countable(laid_out(total.sum())))
            unchanged.add(states[-1])
        _require(unchanged)
        return states

    def _output(self, edge: nn.Module, x: Tensor, weight: Tensor | Sampled | None, factor: Tensor | None) -> Tensor:
        """Return the output of an edge for input x, times a factor."""
        if not isinstance(weight, Sampled) or type(edge) is PartialOperation or altered(edge):
            return _scaled(as_it_is(edge, x), factor)
        weight = weight._replace(weights=_scaled(weight.weights, factor))
        candidates = list(candidates_of(cast(MixedOperation, edge)).values())
        (choice, scale, _), *others = weight.computed()
        candidate = candidates[choice]
        if candidate not in self._layers:
            self._layers[candidate] = layers_of(candidate)
        layers = self._layers[candidate]
        out = run_batched([layers], Wide(x), scale.repeat) if layers else scale * as_it_is(candidate, x)
        total = RunningSum([out])
        for i, scale, graph in others:
            run = partial(as_it_is, candidates[i])
            total.add(scale * (run(x) if graph else silently(run, x)))
        return total.sum()


class _Plan:
    """Evaluation of the nodes of a cell, in order."""

    def __init__(self, nodes: Sequence[Node], inputs: int) -> None:
        self.inputs = inputs
        self.size = len(nodes)
        leaving: list[list[Edge]] = [[] for _ in range(inputs + len(nodes))]
        for target, node in enumerate(nodes):
            for source, edge in candidates_of(node).items():
                if int(source) in node.kept:
                    leaving[int(source)].append((target, edge))
        mixed, partly, self.single = zip(*map(_by_kind, leaving), strict=True)
        self.nodes = nodes
        self.sources = [_Leaving(edges) for edges in mixed]
        self.partly = [_Leaving(edges) for edges in partly]
        """The mixed operations on a part of the channels."""

    def run(self, inputs: Sequence[Tensor], weights: dict[nn.Module, Tensor]) -> list[Tensor]:
        states = [countable(laid_out(x)) for x in inputs]
        unchanged = Unchanged(*states)
        totals = [RunningSum() for _ in range(self.size)]
        parts = [_Parts() for _ in range(self.size)]
        factors = [node.factors() for node in self.nodes]
        for number in range(self.inputs + self.size):
            if number >= self.inputs:
                node = number - self.inputs
                if (rejoined := parts[node].joined()) is not None:
                    totals[node].add(rejoined)
                states.append(countable(laid_out(totals[node].sum())))
                unchanged.add(states[-1])
            x, by_target = states[number], [each.get(number) for each in factors]
            self.sources[number].run(x, weights, by_target, totals)
            if (partly := self.partly[number]).targets:
                first = cast(PartialOperation, partly.edges[0])
                computed, passing = split(x, groups_of(first), first.label)
                partly.run(laid_out(computed), weights, by_target, [part.computed for part in parts])
                source = _Passing(passing, groups_of(first), first.label)
                for target in partly.targets:
                    parts[target].passing.append((source, by_target[target]))
            for target, edge in self.single[number]:
                totals[target].add(_scaled(as_it_is(edge, x), by_target[target]))
        _require(unchanged)
        return states


class _Leaving(OutEdges):
    """The mixed operations of one kind that leave one node, with the nodes that they lead to."""

    def __init__(self, edges: Sequence[Edge]) -> None:
        super().__init__([cast(MixedOperation, edge) for _, edge in edges])
        self.targets = [target for target, _ in edges]

    def run(
        self,
        x: Tensor,
        weights: Mapping[nn.Module, Tensor],
        factors: Sequence[Tensor | None],
        totals: Sequence[RunningSum],
    ) -> None:
        """Add the output of each edge, times its factor, to the sum of its target."""
        scaled = [
            _scaled(weights[edge], factors[target]) for edge, target in zip(self.edges, self.targets, strict=True)
        ]
        self(x, scaled, [totals[target] for target in self.targets])


class _Passing:
    """The channels of one state that pass its partial operations, pooled at most once."""

    def __init__(self, channels: Tensor, groups: int, label: str) -> None:
        self.channels, self.groups, self.label = channels, groups, label
        self._pooled: Tensor | None = None

    def like(self, output: Tensor) -> Tensor:
        if output.shape[2:] == self.channels.shape[2:]:
            return self.channels
        if self._pooled is None:
            self._pooled = passed(self.channels, output)
        return self._pooled


class _Parts:
    """The in-edges of a node that compute a part of the channels: their sum is shuffled as one, which is linear."""

    def __init__(self) -> None:
        self.computed = RunningSum()
        self.passing: list[tuple[_Passing, Tensor | None]] = []

    def joined(self) -> Tensor | None:
        """Return the sum of the edges; None if there are none."""
        if not self.passing:
            return None
        computed = self.computed.sum()
        others = RunningSum(_scaled(source.like(computed), factor) for source, factor in self.passing).sum()
        return joined(computed, others, self.passing[0][0].groups, self.passing[0][0].label)


def _by_kind(edges: Sequence[Edge]) -> tuple[list[Edge], list[Edge], list[Edge]]:
    """Divide edges into mixed operations, those on a part of the channels, and edges that run alone."""
    kinds: dict[type | None, list[Edge]] = {MixedOperation: [], PartialOperation: [], None: []}
    for target, edge in edges:
        kinds[type(edge) if type(edge) in kinds and not altered(edge) else None].append((target, edge))
    return kinds[MixedOperation], kinds[PartialOperation], kinds[None]


def _scaled(x: Tensor, factor: Tensor | None) -> Tensor:
    return x if factor is None else factor * x


def _require(unchanged: Unchanged) -> None:
    if not unchanged.holds():
        raise SpaceError("an edge must not change its input in place; use inplace=False")
