"""The planned evaluation of a cell: node by node, all edges that leave a node at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from nas.cell import Cell
from nas.mixed import MixedOperation, Node, Sampled, mixing_of
from nas.planner.layout import laid_out
from nas.planner.source import SourcePlan
from nas.planner.structure import watched

Edge = tuple[int, nn.Module]
"""The number of the node that an edge leads to, counted from 0 without the inputs, and the edge."""


class Planned:
    """Evaluates a cell as `Cell.plain` does, faster; refers to the cell's modules, and holds none of their tensors.

    The plan is made when it is first needed, and anew where modules were exchanged, got hooks, or changed their mode.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self._plans: dict[tuple[object, ...], _Plan] = {}

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        nodes = [node for node in self.cell.nodes if isinstance(node, Node)]
        edges = [edge for node in nodes for edge in node.children() if isinstance(edge, MixedOperation)]
        weights = {edge: mixing_of(edge) for edge in edges}
        if len(nodes) < len(self.cell.nodes) or any(map(watched, nodes)):
            return self.cell.plain(inputs)
        if any(isinstance(weight, Sampled) for weight in weights.values()):
            return self.cell.plain(inputs)  # one candidate on an edge: there is nothing to share
        return self._plan(nodes).run(inputs, cast(dict[nn.Module, Tensor], weights))

    def _plan(self, nodes: Sequence[Node]) -> _Plan:
        for known in self._plans.values():
            if known.outdated():
                self._plans.clear()
                break
        modes = tuple(
            (node.kept, *(norm.training for norm in node.modules() if isinstance(norm, nn.BatchNorm2d)))
            for node in nodes
        )
        if modes not in self._plans:
            self._plans[modes] = _Plan(nodes, self.cell.inputs)
        return self._plans[modes]


class _Plan:
    def __init__(self, nodes: Sequence[Node], inputs: int) -> None:
        self.inputs = inputs
        self.size = len(nodes)
        leaving: list[list[Edge]] = [[] for _ in range(inputs + len(nodes))]
        for target, node in enumerate(nodes):
            for source, edge in node.named_children():
                if int(source) in node.kept:
                    leaving[int(source)].append((target, edge))
        mixed = [[(n, e) for n, e in edges if type(e) is MixedOperation and not watched(e)] for edges in leaving]
        self.single = [[pair for pair in edges if pair not in some] for edges, some in zip(leaving, mixed, strict=True)]
        self.targets = [[target for target, _ in edges] for edges in mixed]
        self.sources = [SourcePlan([e for _, e in edges]) for edges in mixed]
        self._seen = [
            (module, tuple(module._modules.values()), watched(module)) for node in nodes for module in node.modules()
        ]

    def outdated(self) -> bool:
        """Whether a module has other children, or hooks where it had none, than when the plan was made."""
        return any(
            tuple(part._modules.values()) != children or watched(part) != was for part, children, was in self._seen
        )

    def run(self, inputs: Sequence[Tensor], weights: dict[nn.Module, Tensor]) -> list[Tensor]:
        states = [laid_out(x) for x in inputs]
        totals: list[Tensor | None] = [None] * self.size
        for number in range(self.inputs + self.size):
            if number >= self.inputs:
                states.append(laid_out(cast(Tensor, totals[number - self.inputs])))
            plan = self.sources[number]
            outs = plan(states[number], [weights[edge] for edge in plan.edges])
            terms = [*zip(self.targets[number], outs, strict=True)]
            terms += [(target, edge(states[number])) for target, edge in self.single[number]]
            for target, term in terms:
                if term is not None:
                    total = totals[target]
                    totals[target] = term if total is None else total + term
        return states
