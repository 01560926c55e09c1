"""The planned evaluation of a cell: node by node, all edges that leave a node at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from nas.cell import Cell
from nas.errors import SpaceError
from nas.inplace import Unchanged, countable
from nas.mixed import MixedOperation, Node, Sampled, candidates_of, mixing_of
from nas.planner.layers import Wide, as_it_is, run_chains
from nas.planner.layout import by_hand, inside, is_last, laid_out
from nas.planner.source import SourcePlan, Total
from nas.planner.structure import Assumed, Chain, altered, chain, every_call_counts

Edge = tuple[int, nn.Module]
"""The number of the node that an edge leads to, counted from 0 without the inputs, and the edge."""


class Planned:
    """Evaluates a cell as `Cell.plain` does, faster; refers to the cell's modules, and holds none of their tensors.

    The plan is made when it is first needed, and again if what it assumes of the modules no longer holds, or their mode
    is another. Cells that no plan can evaluate are evaluated plainly: nodes that are not the sum of their edges, hooks
    that wait for every call of a module, statistics at several places, and transforms of `torch.func`.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self._survey: _Survey | None = None
        self._plans: dict[tuple[object, ...], _Plan] = {}

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes plans of its own: they look into the modules of one cell."""
        return {"cell": self.cell, "_survey": None, "_plans": {}}

    def __call__(self, inputs: Sequence[Tensor], **keywords: Any) -> list[Tensor]:
        # The layers of a candidate take no keywords. Images that leave a plan lie channels last, which is safe in the
        # context of a supernet's evaluation alone, and not if its parts are called by themselves.
        if keywords or (any(map(is_last, inputs)) and not inside()):
            return self.cell.plain(inputs, **keywords)
        try:
            with by_hand():
                states = self._states(inputs)
        except (SpaceError, RuntimeError):
            self.cell.plain(inputs)  # fails too, and names the candidates
            raise
        return self.cell.plain(inputs) if states is None else states

    def _states(self, inputs: Sequence[Tensor]) -> list[Tensor] | None:
        """The states; None for a cell that must be evaluated plainly."""
        if every_call_counts() or torch._C._are_functorch_transforms_active():
            return None
        if self._survey is None or not self._survey.assumed.holds():
            self._survey = _Survey(self.cell)
            self._plans.clear()
        survey = self._survey
        weights: dict[nn.Module, Tensor | Sampled] = {edge: mixing_of(edge) for edge in survey.edges}
        if not survey.usual or survey.ties_buffers():
            return None
        if any(isinstance(weight, Sampled) for weight in weights.values()):
            return survey.run_sampled(inputs, weights)  # one candidate on an edge: there is nothing to plan
        modes = (*(node.kept for node in survey.nodes), *(norm.training for norm in survey.norms))
        if modes not in self._plans:
            self._plans[modes] = _Plan(survey.nodes, self.cell.inputs)
        return self._plans[modes].run(inputs, cast(dict[nn.Module, Tensor], weights))


class _Survey:
    """The modules of a cell, as long as what is assumed of them holds."""

    def __init__(self, cell: Cell) -> None:
        modules = list(cell.modules())
        self.nodes = [node for node in cell.nodes if type(node) is Node]
        places = Counter(id(m) for _, m in cell.named_modules(remove_duplicate=False) if m._buffers)
        usual = len(self.nodes) == len(cell.nodes) and not any(map(altered, self.nodes))
        self.usual = usual and all(count == 1 for count in places.values())
        """Whether every node is the sum of its edges, and none has statistics in common with another module."""
        edges = [edge for node in self.nodes for edge in candidates_of(node).values()]
        self.edges = [edge for edge in edges if type(edge) is MixedOperation]
        self.norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
        self._chains: dict[nn.Module, Chain | None] = {}
        self._buffers = [module._buffers for module in modules if module._buffers]
        self.assumed = Assumed(modules)

    def ties_buffers(self) -> bool:
        """Whether a buffer lies at several places: which layer moves it first then matters."""
        buffers = [id(b) for table in self._buffers for b in table.values() if b is not None]
        return len(set(buffers)) != len(buffers)

    def run_sampled(self, inputs: Sequence[Tensor], weights: Mapping[nn.Module, Tensor | Sampled]) -> list[Tensor]:
        """The states, from the one candidate of each edge that was sampled."""
        states = [countable(laid_out(x)) for x in inputs]
        unchanged = Unchanged(*states)
        for node in self.nodes:
            edges = [(states[int(s)], edge) for s, edge in candidates_of(node).items() if int(s) in node.kept]
            total = Total(self._output(edge, x, weights.get(edge)) for x, edge in edges)
            states.append(countable(laid_out(total.sum())))
            unchanged.add(states[-1])
        _require(unchanged)
        return states

    def _output(self, edge: nn.Module, x: Tensor, weight: Tensor | Sampled | None) -> Tensor:
        """What an edge makes of x."""
        if not isinstance(weight, Sampled) or altered(edge):
            return as_it_is(edge, x)
        candidate = list(candidates_of(cast(MixedOperation, edge)).values())[weight.choice]
        if candidate not in self._chains:
            self._chains[candidate] = chain(candidate)
        layers, scale = self._chains[candidate], weight.weights[weight.choice : weight.choice + 1]
        return run_chains([layers], Wide(x), scale.repeat) if layers else scale * as_it_is(candidate, x)


class _Plan:
    def __init__(self, nodes: Sequence[Node], inputs: int) -> None:
        self.inputs = inputs
        self.size = len(nodes)
        leaving: list[list[Edge]] = [[] for _ in range(inputs + len(nodes))]
        for target, node in enumerate(nodes):
            for source, edge in candidates_of(node).items():
                if int(source) in node.kept:
                    leaving[int(source)].append((target, edge))
        mixed = [[(n, e) for n, e in edges if type(e) is MixedOperation and not altered(e)] for edges in leaving]
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
                totals[target].add(as_it_is(edge, states[number]))
        _require(unchanged)
        return states


def _require(unchanged: Unchanged) -> None:
    if not unchanged.holds():
        raise SpaceError("an edge changes its input in place")
