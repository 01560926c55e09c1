"""The modules a decision becomes: mixed in a supernet, decided in a derived network, with equal names of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Number
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from nas.errors import SpaceError
from nas.inplace import Unchanged, countable
from nas.sums import total

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

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        (chosen,) = candidates_of(self).values()
        return chosen(*inputs, **keywords)

    def extra_repr(self) -> str:
        return f"label={self.label!r}"

    def __bool__(self) -> bool:
        raise SpaceError(
            f"'{self.label}' was used as a condition: a search space must not branch on what it chose, but state what"
            " depends on a candidate inside that candidate's function"
        )

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str | Number | tuple | list):  # what a choice could be
            raise SpaceError(
                f"'{self.label}' was compared with {other!r}: a search space must not branch on what it chose"
            )
        return self is other

    def __hash__(self) -> int:  # in Python: `torch.compile` looks into no other
        return id(self)


class MixedOperation(Decided):
    """All candidates of one decision, summed with mixing weights.

    Candidates take the same inputs, leave them as they are, and return alike; see `nas.sums.total`.
    """

    def __init__(self, label: str, candidates: Mapping[str, nn.Module], mixing: Mixing) -> None:
        super().__init__(label, candidates)
        _refer(self, mixing)

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        weights, candidates = _needed(mixing_of(self), list(candidates_of(self).items()))
        inputs, keywords = countable((inputs, keywords))
        shared = Unchanged(*inputs, *keywords.values())

        def outputs() -> Iterator[tuple[str, Any]]:
            for name, candidate in candidates:
                output = candidate(*inputs, **keywords)
                shared.require(name, self.label)
                yield name, output

        return total(self.label, outputs(), weights)


class Node(Decided):
    """A node of a cell: the sum over its in-edges, children by the number of their source."""

    def __init__(self, label: str, edges: Mapping[int, nn.Module]) -> None:
        super().__init__(label, {str(source): edge for source, edge in edges.items()})
        self.kept = tuple(edges)
        """The sources that are summed: all of them, unless a supernet is fixed to a genotype."""
        self.shared: dict[int, list[int]] = {}
        """For the edge from each source the states that it must leave as they are: all if absent."""

    def forward(self, states: Sequence[Any], **keywords: Any) -> Any:
        needed = max(self.kept) + 1
        if not isinstance(states, list | tuple) or len(states) < needed:
            found = f"{len(states)} of them" if isinstance(states, list | tuple) else type(states).__name__
            raise SpaceError(f"'{self.label}' takes a list of {needed} states or more, got {found}")
        states, keywords = countable((list(states), keywords))

        def outputs() -> Iterator[tuple[str, Any]]:
            for name, edge in candidates_of(self).items():
                source = int(name)
                if source not in self.kept:
                    continue
                if type(edge) is MixedOperation:  # it takes care by itself
                    yield name, edge(states[source], **keywords)
                    continue
                used = [states[i] for i in self.shared.get(source, range(len(states)))]
                shared = Unchanged(*used, *keywords.values())
                output = edge(states[source], **keywords)
                require_unchanged(shared, name, edge, self.label)
                yield name, output

        return total(self.label, outputs())


def candidates_of(module: Decided) -> dict[str, nn.Module]:
    """The candidates of a decision by name; unlike `named_children`, also those that share one module."""
    return cast(dict[str, nn.Module], module._modules)


def require_unchanged(shared: Unchanged, name: object, module: nn.Module, label: str) -> None:
    """Raise `SpaceError` if `module`, which is `name` of `label`, has changed a tensor; names what it chose."""
    while type(module) is Decided:
        label, ((name, module),) = module.label, candidates_of(module).items()
    shared.require(name, label)


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

    def forward(self, x: Any, *inputs: Any, **keywords: Any) -> Any:
        """Run the blocks one after the other; all get the same other inputs."""
        return self._states(x, inputs, keywords, (len(candidates_of(self)),))[-1]

    def _states(self, x: Any, inputs: Any, keywords: Any, counts: Sequence[int]) -> list[Any]:
        """What there is after each of these numbers of blocks."""
        x, inputs, keywords = countable((x, inputs, keywords))
        shared = Unchanged(*inputs, *keywords.values())
        found = {}
        for number, (name, block) in enumerate(list(candidates_of(self).items())[: max(counts)]):
            if number in counts:
                found[number] = x
                shared.add(x)
            x = block(x, *inputs, **keywords)
            require_unchanged(shared, name, block, self.label)
            x = countable(x)
        return [found.get(count, x) for count in counts]


class MixedDepth(ChosenDepth):
    """A chain of blocks whose output mixes the states after each candidate count."""

    def __init__(self, label: str, counts: Sequence[int], blocks: Sequence[nn.Module], mixing: Mixing) -> None:
        super().__init__(label, blocks)
        self.counts = tuple(counts)
        _refer(self, mixing)

    def forward(self, x: Any, *inputs: Any, **keywords: Any) -> Any:
        weights, counts = _needed(mixing_of(self), self.counts)
        states = self._states(x, inputs, keywords, counts)
        return total(self.label, zip(counts, states, strict=True), weights)


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
