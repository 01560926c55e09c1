"""Cells: a chain of micro decisions, and a directed acyclic graph of nodes with a micro decision on every edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from nas.errors import SpaceError
from nas.space.chooser import Chooser, Factory, whole_number
from nas.space.inplace import Unchanged, countable
from nas.space.mixed import Node, require_unchanged
from nas.space.operations import misfit
from nas.space.sums import total

Candidates = Mapping[str, Factory]


class Chain(nn.Sequential):
    """`length` micro decisions in a row, labelled `label/1`, `label/2`, ...

    Args:
        choose: the argument of the search space.
        label: prefix of the labels.
        operations: the candidates of every decision.
        length: number of decisions, 0 or more.
        residual: add the input to the output.

    Raises:
        SpaceError: `length` is not a whole number of at least 0; in a forward pass, a candidate changes its input
            in place, or the sum of input and output fails (`nas.space.sums.total`).

    Shape:
        The output has the shape of the input if every candidate keeps it.

    Example:
        >>> def space(choose, /, *, channels: int = 8):
        ...     return nas.Chain(choose, "chain", nas.OperationSet.of("darts").bind(channels), length=2)
        >>> list(nas.SearchSpace("chains", space).describe().decisions)
        ['chain/1', 'chain/2']
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
    """A cell as a directed acyclic graph: every node sums its in-edges from all earlier states.

    Each edge is a micro decision. States are numbered from 0, the inputs first. The edge from state s to node n has the
    label `label/n<-s`. The choice of the in-edges of node n has the label `label/n`.

    Args:
        choose: the argument of the search space.
        label: prefix of the labels.
        operations: the candidates of every edge, or a function of (source, node) that returns those of one edge.
        nodes: number of nodes besides the inputs.
        inputs: number of input tensors.
        keep: number of in-edges that a derived node keeps, the strongest ones; None keeps all.
        output: `concat` returns all nodes, concatenated over channels; `last` returns the last node.

    Raises:
        SpaceError: a number is below 1, `output` is unknown, or `operations` does not take (source, node); in a forward
            pass, the number of inputs is wrong, a candidate changes its input in place, or outputs cannot be summed.

    Shape:
        Inputs: `inputs` tensors of `(batch, channels, height, width)`. Output: `(batch, nodes * channels, height,
        width)` with `concat`, else `(batch, channels, height, width)`, both after any stride of the candidates.

    References:
        Liu, Simonyan and Yang, "DARTS", ICLR 2019, sec. 2.1, eq. 1.

    Example:
        >>> def space(choose, /, *, channels: int = 8):
        ...     return nas.Cell(choose, "cell", nas.OperationSet.of("darts").bind(channels), nodes=2, inputs=1)
        >>> list(nas.SearchSpace("cells", space).describe().decisions)
        ['cell/1', 'cell/1<-0', 'cell/2', 'cell/2<-0', 'cell/2<-1']
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
        """Computes the states from the inputs in place of `plain`; a supernet sets it."""

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
        """List for each edge the states that it must not change: those with another use."""
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
        """Compute the states, inputs first, by one call of every candidate on every edge.

        Args:
            inputs: the input states, `(batch, channels, height, width)`.
            keywords: keyword arguments of every candidate.

        Returns:
            All states: the inputs, then one tensor for each node.
        """
        states = list(inputs)
        for node in self.nodes:
            states.append(cast(Tensor, node(states, **keywords)))
        return states
