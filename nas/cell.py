"""Cells: a chain of micro decisions, and a directed acyclic graph of nodes with a micro decision on every edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from nas.choose import Chooser, Factory
from nas.errors import SpaceError

Candidates = Mapping[str, Factory]


class Chain(nn.Sequential):
    """`length` micro decisions in a row, labelled `label/1`, `label/2`, ...

    Maps a tensor to one of equal shape where the candidates do; with `residual` the input is added to the output.
    """

    def __init__(
        self, choose: Chooser, label: str, operations: Candidates, *, length: int, residual: bool = False
    ) -> None:
        super().__init__(*(choose(f"{label}/{i}", operations) for i in range(1, length + 1)))
        self.label = label
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for operation in self:
            out = operation(out)
        return x + out if self.residual else out


class Cell(nn.Module):
    """A DAG cell (DARTS, sec. 2.1): every node sums its in-edges from all earlier states, each edge a micro decision.

    Takes `inputs` tensors; returns its nodes concatenated over channels, or the last node alone. States are numbered
    from 0, the inputs first; the edge from state s to node n has the label `label/n<-s`, the choice of a node's
    in-edges the label `label/n`.

    Args:
        operations: the candidates of every edge, or a function of (source, node) that returns those of one edge.
        nodes: the number of nodes besides the inputs.
        keep: in-edges a node keeps when derived, the strongest ones; all where None.
    """

    def __init__(
        self,
        choose: Chooser,
        label: str,
        operations: Candidates | Callable[[int, int], Candidates],
        *,
        nodes: int = 4,
        inputs: int = 2,
        keep: int | None = 2,
        output: Literal["concat", "last"] = "concat",
    ) -> None:
        super().__init__()
        if nodes < 1 or inputs < 1:
            raise SpaceError(f"cell '{label}' needs at least one node and one input, found {nodes} and {inputs}")
        self.label = label
        self.inputs = inputs
        self.output = output
        self.evaluation: Callable[[Sequence[Tensor]], list[Tensor]] | None = None
        """What computes the states from the inputs, where it is not `plain`; a supernet sets it."""
        candidates = operations if callable(operations) else lambda source, node: operations

        def edge(source: int, node: int) -> Factory:
            return lambda: choose(f"{label}/{node}<-{source}", candidates(source, node))

        self.nodes = nn.ModuleList(
            choose.inputs(f"{label}/{node}", {source: edge(source, node) for source in range(node)}, keep)
            for node in range(inputs, inputs + nodes)
        )

    def forward(self, *inputs: Tensor) -> Tensor:
        if len(inputs) != self.inputs:
            raise SpaceError(f"cell '{self.label}' takes {self.inputs} inputs, found {len(inputs)}")
        states = (self.evaluation or self.plain)(inputs)
        return states[-1] if self.output == "last" else torch.cat(states[self.inputs :], dim=1)

    def plain(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The states, inputs first, by one call of every candidate on every edge."""
        states = list(inputs)
        for node in self.nodes:
            states.append(cast(Tensor, node(states)))
        return states
