"""Cells: a chain of micro decisions, and a directed acyclic graph of nodes with a micro decision on every edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from nas.choose import Chooser, Factory, whole_number
from nas.errors import SpaceError
from nas.inplace import Unchanged, countable
from nas.mixed import Node, require_unchanged
from nas.operations import misfit
from nas.sums import total

Candidates = Mapping[str, Factory]


class Chain(nn.Sequential):
    """`length` micro decisions in a row, labelled `label/1`, `label/2`, ...

    Maps a tensor to one of equal shape where the candidates do; with `residual` the input is added to the output.
    """

    def __init__(
        self, choose: Chooser, label: str, operations: Candidates, *, length: int, residual: bool = False
    ) -> None:
        length = whole_number(f"'length' of '{label}'", length, 0)
        super().__init__(*(choose(f"{label}/{i}", operations) for i in range(1, length + 1)))
        self.label = label
        self.residual = residual

    def forward(self, input: Tensor, **keywords: Any) -> Tensor:
        x, keywords = countable((input, keywords))
        shared = Unchanged(*keywords.values(), *((x,) if self.residual else ()))
        out = x
        for number, operation in enumerate(self, 1):
            out = operation(out, **keywords)
            require_unchanged(shared, number, operation, self.label)
        return cast(Tensor, total(self.label, (("input", x), ("output", out))) if self.residual else out)


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
        nodes = whole_number(f"'nodes' of '{label}'", nodes, 1)
        inputs = whole_number(f"'inputs' of '{label}'", inputs, 1)
        if output not in ("concat", "last"):
            raise SpaceError(f"'output' of '{label}' must be 'concat' or 'last', got {output!r}")
        self.label = label
        self.inputs = inputs
        self.output = output
        self.evaluation: Callable[..., list[Tensor]] | None = None
        """What computes the states from the inputs, where it is not `plain`; a supernet sets it."""

        def candidates(source: int, node: int) -> Any:
            if not callable(operations) or isinstance(operations, nn.Module):
                return operations
            if problem := misfit(operations, source, node):
                raise SpaceError(f"'operations' of '{label}' must be a function of (source, node): {problem}")
            return operations(source, node)

        def edge(source: int, node: int) -> Factory:
            return lambda: choose(f"{label}/{node}<-{source}", candidates(source, node))

        self.nodes = nn.ModuleList(
            choose.inputs(f"{label}/{node}", {source: edge(source, node) for source in range(node)}, keep)
            for node in range(inputs, inputs + nodes)
        )

        self._share()

    def _share(self) -> None:
        """Tell the nodes which states each edge must leave as they are: those that something else uses, too."""
        end = self.inputs + len(self.nodes)
        uses = [(end, state) for state in range(end - 1 if self.output == "last" else self.inputs, end)]
        for number, node in enumerate(self.nodes, self.inputs):
            uses += [(number, source) for source in (node.kept if isinstance(node, Node) else range(number))]
        for number, node in enumerate(self.nodes, self.inputs):
            if isinstance(node, Node):
                for source in node.kept:
                    others = [use for use in uses if use != (number, source)]
                    wanted = {state for at, state in others if state == source or (state < number <= at)}
                    node.shared[source] = sorted(wanted)

    def forward(self, *inputs: Tensor, **keywords: Any) -> Tensor:
        if len(inputs) != self.inputs:
            raise SpaceError(f"cell '{self.label}' takes {self.inputs} inputs, got {len(inputs)}")
        states = (self.evaluation or self.plain)(inputs, **keywords)
        return states[-1] if self.output == "last" else torch.cat(states[self.inputs :], dim=1)

    def plain(self, inputs: Sequence[Tensor], **keywords: Any) -> list[Tensor]:
        """The states, inputs first, by one call of every candidate on every edge, all with the same keywords."""
        states = list(inputs)
        for node in self.nodes:
            states.append(cast(Tensor, node(states, **keywords)))
        return states
