"""The planned evaluation of a cell: node by node, all edges that leave a node at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from nas.cell import Cell
from nas.errors import SpaceError
from nas.inplace import Unchanged, countable
from nas.mixed import MixedOperation, Node, Sampled, candidates_of, mixing_of
from nas.planner.layers import Wide, run_chains
from nas.planner.layout import laid_out
from nas.planner.source import SourcePlan, Total
from nas.planner.structure import Chain, chain, is_zero, watched

Edge = tuple[int, nn.Module]
"""The number of the node that an edge leads to, counted from 0 without the inputs, and the edge."""


class Planned:
    """Evaluates a cell as `Cell.plain` does, faster; refers to the cell's modules, and holds none of their tensors.

    The plan is made when it is first needed, and anew where modules were exchanged, got hooks, or changed their mode.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self._survey: _Survey | None = None
        self._plans: dict[tuple[object, ...], _Plan] = {}

    def __call__(self, inputs: Sequence[Tensor], **keywords: Any) -> list[Tensor]:
        if keywords:  # the layers of a candidate take none
            return self.cell.plain(inputs, **keywords)
        if self._survey is None or self._survey.outdated():
            self._survey = _Survey(self.cell)
            self._plans.clear()
        survey = self._survey
        weights: dict[nn.Module, Tensor | Sampled] = {edge: mixing_of(edge) for edge in survey.edges}
        if not survey.usual:
            return self.cell.plain(inputs)
        try:
            return self._run(survey, inputs, weights)
        except (SpaceError, RuntimeError):
            self.cell.plain(inputs)  # fails too, and names the candidates
            raise

    def _run(
        self, survey: _Survey, inputs: Sequence[Tensor], weights: Mapping[nn.Module, Tensor | Sampled]
    ) -> list[Tensor]:
        if any(isinstance(weight, Sampled) for weight in weights.values()):
            return survey.run_sampled(inputs, weights)  # one candidate on an edge: there is nothing to plan
        modes = (*(node.kept for node in survey.nodes), *(norm.training for norm in survey.norms))
        if modes not in self._plans:
            self._plans[modes] = _Plan(survey.nodes, self.cell.inputs)
        return self._plans[modes].run(inputs, cast(dict[nn.Module, Tensor], weights))


class _Survey:
    """The modules of a cell, as long as none of them is exchanged or gets hooks."""

    def __init__(self, cell: Cell) -> None:
        modules = list(cell.modules())
        self.nodes = [node for node in cell.nodes if type(node) is Node]
        self.usual = len(self.nodes) == len(cell.nodes) and not any(map(watched, self.nodes))
        """Whether every node is the sum of its edges, and no one waits for it to be called."""
        edges = [edge for node in self.nodes for edge in candidates_of(node).values()]
        self.edges = [edge for edge in edges if type(edge) is MixedOperation]
        self.norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
        self._chains: dict[nn.Module, Chain | None] = {}
        self._families = [(module._modules, tuple(module._modules.values())) for module in modules if module._modules]
        self._watched = [(module, watched(module)) for module in modules]

    def run_sampled(self, inputs: Sequence[Tensor], weights: Mapping[nn.Module, Tensor | Sampled]) -> list[Tensor]:
        """The states, from the one candidate of each edge that was sampled."""
        states = [countable(laid_out(x)) for x in inputs]
        unchanged = Unchanged(*states)
        for node in self.nodes:
            edges = [(states[int(s)], edge) for s, edge in candidates_of(node).items() if int(s) in node.kept]
            outs = [self._output(edge, x, weights.get(edge)) for x, edge in edges]
            terms = [out for out in outs if out is not None] or [edge(x) for x, edge in edges[:1]]  # zeros, of a shape
            states.append(countable(laid_out(Total(terms).sum())))
            unchanged.add(states[-1])
        _require(unchanged)
        return states

    def _output(self, edge: nn.Module, x: Tensor, weight: Tensor | Sampled | None) -> Tensor | None:
        """What an edge makes of x; None where it is no connection."""
        if not isinstance(weight, Sampled) or watched(edge):
            return cast(Tensor, edge(x))
        candidate = list(candidates_of(cast(MixedOperation, edge)).values())[weight.choice]
        if is_zero(candidate):
            return None
        if candidate not in self._chains:
            self._chains[candidate] = chain(candidate)
        layers, scale = self._chains[candidate], weight.weights[weight.choice : weight.choice + 1]
        return run_chains([layers], Wide(x), scale.repeat) if layers else scale * candidate(x)

    def outdated(self) -> bool:
        return any(tuple(now.values()) != before for now, before in self._families) or any(
            watched(module) != before for module, before in self._watched
        )


class _Plan:
    def __init__(self, nodes: Sequence[Node], inputs: int) -> None:
        self.inputs = inputs
        self.size = len(nodes)
        leaving: list[list[Edge]] = [[] for _ in range(inputs + len(nodes))]
        for target, node in enumerate(nodes):
            for source, edge in candidates_of(node).items():
                if int(source) in node.kept:
                    leaving[int(source)].append((target, edge))
        mixed = [[(n, e) for n, e in edges if type(e) is MixedOperation and not watched(e)] for edges in leaving]
        self.single = [[pair for pair in edges if pair not in some] for edges, some in zip(leaving, mixed, strict=True)]
        self.targets = [[target for target, _ in edges] for edges in mixed]
        self.sources = [SourcePlan([e for _, e in edges]) for edges in mixed]

    def run(self, inputs: Sequence[Tensor], weights: dict[nn.Module, Tensor]) -> list[Tensor]:
        states = [countable(laid_out(x)) for x in inputs]
        unchanged = Unchanged(*states)
        totals = [Total() for _ in range(self.size)]
        for number in range(self.inputs + self.size):
            if number >= self.inputs:
                states.append(countable(laid_out(totals[number - self.inputs].sum())))
                unchanged.add(states[-1])
            plan, targets = self.sources[number], self.targets[number]
            plan(states[number], [weights[edge] for edge in plan.edges], [totals[target] for target in targets])
            for target, edge in self.single[number]:
                totals[target].add(edge(states[number]))
        _require(unchanged)
        return states


def _require(unchanged: Unchanged) -> None:
    if not unchanged.holds():
        raise SpaceError("an edge changes its input in place")
