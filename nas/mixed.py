"""The modules a decision becomes: mixed in a supernet, decided in a derived network, with equal names of weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from nas.errors import SpaceError

Output = TypeVar("Output", Tensor, tuple[Any, ...])
Item = TypeVar("Item")


class Sampled(NamedTuple):
    """One-hot mixing weights of which it is known what they choose, so that only that is computed."""

    choice: int
    weights: Tensor
    """Shape `(candidates,)`: 1 at `choice`, else 0. Gradients reach the one weight that is used."""


class Mixing(Protocol):
    """Where a mixed operation finds its mixing weights."""

    def __call__(self, label: str) -> Tensor | Sampled:
        """The mixing weights of the decision `label`: shape `(candidates,)`, in [0, 1]."""


class Decided(nn.Module):
    """The module of a decision: its candidates as children, by name. This one runs its only child."""

    def __init__(self, label: str, candidates: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.label = label
        for name, module in candidates.items():
            self.add_module(name, module)

    def forward(self, *inputs: Any) -> Any:
        (chosen,) = self.children()
        return chosen(*inputs)

    def extra_repr(self) -> str:
        return f"label={self.label!r}"

    def __bool__(self) -> bool:
        raise SpaceError(
            f"'{self.label}' was used as a condition: a search space must not branch on what it chose, but state what"
            " depends on a candidate inside that candidate's function"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, nn.Module):
            raise SpaceError(
                f"'{self.label}' was compared with {other!r}: a search space must not branch on what it chose"
            )
        return self is other

    __hash__ = nn.Module.__hash__


class MixedOperation(Decided):
    """All candidates of one decision, summed with mixing weights.

    Candidates take the same inputs and return a tensor, or a tuple of tensors, of equal shapes.
    """

    def __init__(self, label: str, candidates: Mapping[str, nn.Module], mixing: Mixing) -> None:
        super().__init__(label, candidates)
        _refer(self, mixing)

    def forward(self, *inputs: Any) -> Any:
        weights, candidates = _needed(mixing_of(self), list(self.children()))
        return weighted_sum(weights, (candidate(*inputs) for candidate in candidates))


def weighted_sum(weights: Tensor, outputs: Iterable[Output]) -> Output:
    """The sum of `weights[i] * outputs[i]`; tuples (also named ones) are summed item by item."""
    total: Output | None = None
    for weight, output in zip(weights.unbind(), outputs, strict=True):
        if isinstance(output, tuple):
            scaled: Any = tuple(weight * item for item in output)
            if total is not None:
                scaled = tuple(a + b for a, b in zip(total, scaled, strict=True))
            total = type(output)(*scaled) if hasattr(output, "_fields") else scaled
        else:
            total = weight * output if total is None else total + weight * output
    return cast(Output, total)


class Node(Decided):
    """A node of a cell: the sum over its in-edges, children by the number of their source."""

    def __init__(self, label: str, edges: Mapping[int, nn.Module]) -> None:
        super().__init__(label, {str(source): edge for source, edge in edges.items()})
        self.kept = tuple(edges)
        """The sources that are summed: all of them, unless a supernet is fixed to a genotype."""

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        edges = ((int(source), edge) for source, edge in self.named_children())
        return cast(Tensor, sum(edge(states[source]) for source, edge in edges if source in self.kept))


class ChosenWidth(Decided):
    """A chosen number of channels, along one dimension of a tensor. The layer before has it: this is the identity.

    Raises `SpaceError` for anything but a tensor with that number of channels.
    """

    def __init__(self, label: str, channels: int, dim: int = 1) -> None:
        super().__init__(label, {})
        self.channels = channels
        """The channels to build the neighbouring layers with: all of them in a supernet."""
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        shape = tuple(x.shape) if isinstance(x, Tensor) else ()
        if not -len(shape) <= self.dim < len(shape) or shape[self.dim] != self.channels:
            found = f"one of shape {shape}" if shape else type(x).__name__
            raise SpaceError(
                f"the width '{self.label}' must get a tensor with {self.channels} channels in dimension {self.dim}, got"
                f" {found}. Build the layer before it with `.channels`,"
                " or name the dimension of the channels: `choose.width(label, sizes, dim=...)`"
            )
        return x

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, channels={self.channels}, dim={self.dim}"


class MixedWidth(ChosenWidth):
    """Masks channels by the mixing weights: channel c keeps the weight of all sizes above c (FBNetV2, sec. 3.1)."""

    covers: Tensor

    def __init__(self, label: str, sizes: Sequence[int], mixing: Mixing, dim: int = 1) -> None:
        super().__init__(label, max(sizes), dim)
        self.sizes = tuple(sizes)
        covers = [[float(channel < size) for channel in range(self.channels)] for size in sizes]
        self.register_buffer("covers", torch.tensor(covers), persistent=False)
        _refer(self, mixing)

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        mask = _dense(mixing_of(self)) @ self.covers.to(x)
        return x * mask.view(-1, *(1,) * (x.dim() - 1 - self.dim % x.dim()))


class ChosenDepth(Decided):
    """A chain of blocks, children by their number."""

    def __init__(self, label: str, blocks: Sequence[nn.Module]) -> None:
        super().__init__(label, {str(i): block for i, block in enumerate(blocks)})

    def forward(self, x: Any) -> Any:
        for block in self.children():
            x = block(x)
        return x


class MixedDepth(ChosenDepth):
    """A chain of blocks whose output mixes the states after each candidate count."""

    def __init__(self, label: str, counts: Sequence[int], blocks: Sequence[nn.Module], mixing: Mixing) -> None:
        super().__init__(label, blocks)
        self.counts = tuple(counts)
        _refer(self, mixing)

    def forward(self, x: Any) -> Any:
        weights, counts = _needed(mixing_of(self), self.counts)
        after = [x]
        for block in list(self.children())[: max(counts)]:
            after.append(block(after[-1]))
        return weighted_sum(weights, (after[count] for count in counts))


def _needed(weights: Tensor | Sampled, items: Sequence[Item]) -> tuple[Tensor, Sequence[Item]]:
    """Mixing weights and what each belongs to, without what a sample leaves out."""
    if not isinstance(weights, Sampled):
        return weights, items
    only = slice(weights.choice, weights.choice + 1)
    return weights.weights[only], items[only]


def _dense(weights: Tensor | Sampled) -> Tensor:
    return weights.weights if isinstance(weights, Sampled) else weights


def _refer(module: nn.Module, mixing: Mixing) -> None:
    """Keep `mixing` as a plain reference: its parameters belong to the supernet, not to each mixed operation."""
    module.__dict__["_mixing"] = mixing


def mixing_of(module: Decided) -> Tensor | Sampled:
    """The mixing weights of a mixed module's decision, shape `(candidates,)`."""
    mixing: Mixing = module.__dict__["_mixing"]  # no attribute: those could be names of candidates
    return mixing(module.label)
