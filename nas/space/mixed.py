"""The modules that decisions become: mixed in a supernet, decided in a derived network. Names of weights are equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Number
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from nas.errors import SpaceError
from nas.kernels.torch_internals import tables_of, tree_map_only
from nas.space.inplace import Unchanged, countable
from nas.space.sums import total

Item = TypeVar("Item")


class Sampled(NamedTuple):
    """One-hot mixing weights with the index of the 1, so that only this candidate is computed."""

    choice: int
    weights: Tensor
    """Shape `(candidates,)`: 1 at `choice`, else 0. Gradients reach only the weights of what is computed."""
    silent: tuple[int, ...] = ()
    """Candidates that are computed too, without a graph: their weight is 0, but it gets a gradient."""
    further: tuple[int, ...] = ()
    """Terms that are no candidates, which a wrapper added: they have weights of their own."""

    def computed(self) -> Iterator[tuple[int, Tensor, bool]]:
        """Yield what is computed by position, the choice first, its weight of shape `(1,)`, whether it has a graph."""
        for position in (self.choice, *self.silent, *self.further):
            yield position, self.weights[position : position + 1], position not in self.silent


class Mixing(Protocol):
    """A function that returns the mixing weights of a mixed operation."""

    def __call__(self, label: str) -> Tensor | Sampled:
        """Return the mixing weights of the decision `label`: shape `(candidates,)`, in [0, 1]."""


class Decided(nn.Module):
    """The module of a decision, with its candidates as children by name; this class runs its only child.

    Args:
        label: name of the decision.
        candidates: modules by name.

    Raises:
        SpaceError: a search space compares the module with a choice, or uses it as a condition.
    """

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
            f"'{self.label}' was used as a condition: a search space must not branch on its choices. Move the code that"
            " depends on a candidate into that candidate's function"
        )

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str | Number | tuple | list):  # the types of choices
            raise SpaceError(
                f"'{self.label}' was compared with {other!r}: a search space must not branch on its choices. Move the"
                " code that depends on a candidate into that candidate's function"
            )
        return self is other

    def __hash__(self) -> int:  # written in Python, since `torch.compile` cannot trace `object.__hash__`
        return id(self)


class MixedOperation(Decided):
    """The sum of all candidates of one decision, each times its mixing weight.

    All candidates take the same inputs and must not change them. Their outputs must have equal structure and shapes.

    Args:
        label: name of the decision.
        candidates: modules by name.
        mixing: returns the mixing weights.

    Raises:
        SpaceError: in a forward pass, a candidate changes its input in place, or outputs cannot be summed
            (`nas.space.sums.total`).
    """

    def __init__(self, label: str, candidates: Mapping[str, nn.Module], mixing: Mixing) -> None:
        super().__init__(label, candidates)
        _refer(self, mixing)

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        weights, candidates = _needed(mixing_of(self), list(candidates_of(self).items()))
        inputs, keywords = countable((inputs, keywords))
        shared = Unchanged(*inputs, *keywords.values())

        def outputs() -> Iterator[tuple[str, Any]]:
            for (name, candidate), graph in candidates:
                output = candidate(*inputs, **keywords) if graph else silently(candidate, *inputs, **keywords)
                shared.require(name, self.label)
                yield name, output

        return total(self.label, outputs(), weights)


class Node(Decided):
    """A node of a cell: the sum of its in-edges, which are children by the number of their source.

    Args:
        label: name of the choice of in-edges.
        edges: modules by source.
        mixing: returns the factors of the edges, `(edges,)`; without it all are 1.

    Raises:
        SpaceError: in a forward pass, the input is not a list of enough states, an edge changes a state that has
            another use, or outputs cannot be summed.
    """

    def __init__(self, label: str, edges: Mapping[int, nn.Module], mixing: Mixing | None = None) -> None:
        super().__init__(label, {str(source): edge for source, edge in edges.items()})
        if mixing is not None:
            _refer(self, mixing)
        self.kept = tuple(edges)
        """The sources of the sum: all of them, unless a supernet is fixed to a genotype."""
        self.shared: dict[int, list[int]] = {}
        """By source: the states that this edge must not change; all states if absent."""

    def forward(self, states: Sequence[Any], **keywords: Any) -> Any:
        needed = max(self.kept) + 1
        if not isinstance(states, list | tuple) or len(states) < needed:
            found = f"{len(states)} of them" if isinstance(states, list | tuple) else type(states).__name__
            raise SpaceError(f"'{self.label}' must get a list of at least {needed} states, got {found}")
        states, keywords = countable((list(states), keywords))

        def outputs() -> Iterator[tuple[str, Any]]:
            for name, edge in candidates_of(self).items():
                source = int(name)
                if source not in self.kept:
                    continue
                if type(edge) is MixedOperation:  # checks its inputs itself
                    yield name, edge(states[source], **keywords)
                    continue
                used = [states[i] for i in self.shared.get(source, range(len(states)))]
                shared = Unchanged(*used, *keywords.values())
                output = edge(states[source], **keywords)
                require_unchanged(shared, name, edge, self.label)
                yield name, output

        factors = self.factors()
        return total(self.label, outputs(), torch.stack(list(factors.values())) if factors else None)

    def factors(self) -> dict[int, Tensor]:
        """Return the factors of the in-edges of the sum, by source, in order; empty if all are 1."""
        if "_mixing" not in self.__dict__:
            return {}
        sources = map(int, candidates_of(self))
        factors = zip(sources, _dense(mixing_of(self)).unbind(), strict=True)
        return {source: factor for source, factor in factors if source in self.kept}


def candidates_of(module: Decided) -> dict[str, nn.Module]:
    """Return the candidates of a decision by name; unlike `named_children`, also those that share one module."""
    return tables_of(module).children


def require_unchanged(shared: Unchanged, name: object, module: nn.Module, label: str) -> None:
    """Check that a module changed no tensor.

    Args:
        shared: the watched tensors.
        name: the name of `module` within the decision.
        module: a candidate, or a decided module, whose innermost choice the message names.
        label: name of the decision.

    Raises:
        SpaceError: a tensor changed.
    """
    while type(module) is Decided:
        label, ((name, module),) = module.label, candidates_of(module).items()
    shared.require(name, label)


class ChosenWidth(Decided):
    """The identity on a tensor with the chosen number of channels, which the layer before must return.

    Args:
        label: name of the decision.
        channels: the chosen number.
        dim: dimension of the channels.

    Raises:
        SpaceError: in a forward pass, the input is not a tensor with this number of channels.
    """

    def __init__(self, label: str, channels: int, dim: int = 1) -> None:
        super().__init__(label, {})
        self.channels = channels
        """The number of channels of the neighbouring layers; in a supernet, the greatest one."""
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        shape = tuple(x.shape) if isinstance(x, Tensor) else ()
        if not -len(shape) <= self.dim < len(shape) or shape[self.dim] != self.channels:
            found = f"one of shape {shape}" if shape else type(x).__name__
            raise SpaceError(
                f"the width '{self.label}' must get a tensor with {self.channels} channels in dimension {self.dim}, got"
                f" {found}. Build the layer before it with `.channels`, or set the dimension of the channels:"
                " `choose.width(label, sizes, dim=...)`"
            )
        return x

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, channels={self.channels}, dim={self.dim}"


class MixedWidth(ChosenWidth):
    """Multiplies channel c by the sum of the mixing weights of all sizes above c.

    Args:
        label: name of the decision.
        sizes: the numbers of channels to choose from.
        mixing: returns the mixing weights.
        dim: dimension of the channels.

    References:
        Wan et al., "FBNetV2", CVPR 2020, sec. 3.1.
    """

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
    """A chain of blocks, which are children by their number.

    Args:
        label: name of the decision.
        blocks: the modules in order.

    Raises:
        SpaceError: in a forward pass, a block changes an input that others share.
    """

    def __init__(self, label: str, blocks: Sequence[nn.Module]) -> None:
        super().__init__(label, {str(i): block for i, block in enumerate(blocks)})

    def forward(self, x: Any, *inputs: Any, **keywords: Any) -> Any:
        """Run the blocks one after another; all get the same further inputs."""
        return self._states(x, inputs, keywords, (len(candidates_of(self)),))[-1]

    def _states(self, x: Any, inputs: Any, keywords: Any, counts: Sequence[int]) -> list[Any]:
        """Return the output after each of these numbers of blocks."""
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
    """A chain of blocks whose output is the weighted sum of the states after each candidate count.

    Args:
        label: name of the decision.
        counts: the numbers of blocks to choose from.
        blocks: the modules in order.
        mixing: returns the mixing weights.
    """

    def __init__(self, label: str, counts: Sequence[int], blocks: Sequence[nn.Module], mixing: Mixing) -> None:
        super().__init__(label, blocks)
        self.counts = tuple(counts)
        _refer(self, mixing)

    def forward(self, x: Any, *inputs: Any, **keywords: Any) -> Any:
        weights, needed = _needed(mixing_of(self), self.counts)
        counts = [count for count, _ in needed]
        states = self._states(x, inputs, keywords, counts)
        kept = [s if graph else _detached(s) for s, (_, graph) in zip(states, needed, strict=True)]
        return total(self.label, zip(counts, kept, strict=True), weights)


def _needed(weights: Tensor | Sampled, items: Sequence[Item]) -> tuple[Tensor, list[tuple[Item, bool]]]:
    """Return mixing weights, and their items with whether these need a graph; of a sample, only what is computed."""
    if not isinstance(weights, Sampled):
        return weights, [(item, True) for item in items]
    computed = list(weights.computed())
    factors = [factor for _, factor, _ in computed]
    needed = [(items[position], graph) for position, _, graph in computed]
    return factors[0] if len(factors) == 1 else torch.cat(factors), needed


def silently(function: Callable[..., Any], *inputs: Any, **keywords: Any) -> Any:
    """Return the output of a module or function without a graph."""
    with torch.no_grad():
        return _detached(function(*inputs, **keywords))  # which may be an input


def _detached(outputs: Any) -> Any:
    return tree_map_only(Tensor, Tensor.detach, outputs)


def _dense(weights: Tensor | Sampled) -> Tensor:
    return weights.weights if isinstance(weights, Sampled) else weights


def _refer(module: nn.Module, mixing: Mixing) -> None:
    """Store `mixing` outside the module tables: its parameters belong to the supernet, not to mixed operations."""
    module.__dict__["_mixing"] = mixing


def mixing_of(module: Decided) -> Tensor | Sampled:
    """Return the mixing weights of a mixed module's decision, shape `(candidates,)`."""
    mixing: Mixing = module.__dict__["_mixing"]  # not an attribute, since a candidate can have any name
    return mixing(module.label)
