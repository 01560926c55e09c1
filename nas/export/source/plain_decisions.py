"""Modules of decided networks as files hold them: without the checks of what they are given and what they return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from nas.space import cell, mixed


class Decided(nn.Module):
    """The module of a decision: what was chosen, by name."""

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        (chosen,) = self.children()
        return chosen(*inputs, **keywords)


class Node(nn.Module):
    """A node of a cell: the sum over its in-edges, children by the number of their source."""

    def forward(self, states: Sequence[Tensor], **keywords: Any) -> Tensor:
        first, *others = (edge(states[int(source)], **keywords) for source, edge in self.named_children())
        total: Tensor = first
        for other in others:
            total = total + other
        return total


class Chain(nn.Sequential):
    """Chosen operations in a row; with `residual` the input is added to the output."""

    residual: bool

    def forward(self, input: Tensor) -> Tensor:
        out = input
        for operation in self:
            out = operation(out)
        return input + out if self.residual else out


BARE: Mapping[type[nn.Module], type[nn.Module]] = {mixed.Decided: Decided, mixed.Node: Node, cell.Chain: Chain}


@contextmanager
def with_plain_decisions(network: nn.Module) -> Iterator[None]:
    """In this context the modules of a decided network have these classes; it computes the same."""
    changed = [(module, type(module)) for module in network.modules() if type(module) in BARE]
    try:
        for module, cls in changed:
            module.__class__ = BARE[cls]
        yield
    finally:
        for module, cls in changed:
            module.__class__ = cls
