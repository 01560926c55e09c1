"""Which candidate makes the first value that is not finite: looked for when a run has diverged, never before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from nas.finite import finite
from nas.hypergradient.protocol import differentiate
from nas.mixed import ChosenDepth, ChosenWidth, Decided, Node


@dataclass
class Call:
    """One call of a candidate: the tensors that a gradient reaches."""

    place: str
    inputs: list[Tensor]
    parameters: list[Tensor]
    outputs: list[Tensor]
    turned: bool
    """Whether it made values that are not finite from values that are."""


@dataclass
class Seen:
    """The calls of candidates in one evaluation, in the order in which they ended: the inner ones first."""

    calls: list[Call] = field(default_factory=list)

    def origin(self, loss: Tensor) -> str:
        """The candidate that makes values that are not finite from values that are: forwards, else backwards from the
        `loss`. Empty if none does."""
        for call in self.calls:
            if call.turned:
                return call.place
        for call in self.calls:
            if not call.outputs:
                continue
            above = differentiate(loss, call.outputs, retain_graph=True)
            below = differentiate(call.outputs, [*call.inputs, *call.parameters], above, retain_graph=True)
            if finite(above) and not finite(below):
                return call.place
        return ""


@contextmanager
def watching(network: nn.Module) -> Iterator[Seen]:
    """In this context the calls of all candidates of a supernet, or of a derived network, are seen."""
    seen = Seen()

    def saw(place: str, module: nn.Module, inputs: Any, output: Any) -> None:
        parameters = _attached(list(module.parameters()))
        turned = finite(inputs) and not finite(output)
        seen.calls.append(Call(place, _attached(inputs), parameters, _attached(output), turned))

    handles = [
        candidate.register_forward_hook(partial(saw, f"candidate '{name}' of '{decided.label}'"))
        for decided in network.modules()
        if isinstance(decided, Decided) and not isinstance(decided, Node | ChosenWidth | ChosenDepth)
        for name, candidate in decided.named_children()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _attached(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.requires_grad]
