"""The plan of all edges that leave one node, and their evaluation: what they share once, what is alike together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, groupby

import torch
from torch import Tensor, nn

from nas.errors import SpaceError
from nas.inplace import Unchanged, countable
from nas.mixed import MixedOperation, candidates_of
from nas.planner.layers import Wide, as_it_is, run_chains, shared_norm
from nas.planner.layout import is_last
from nas.planner.structure import Chain, chain, is_shared, is_zero, key

Place = tuple[int, int]
"""A candidate: the number of its edge, and its own in it."""
Column = dict[int, int]
"""Candidates of equal output, at most one of each edge: their own numbers by those of their edges."""


class Total:
    """The sum of tensors of one shape, made in one place where that changes nothing: it takes less memory.

    Raises `SpaceError` for tensors of different shapes; which they are, plain evaluation says.
    """

    def __init__(self, terms: Iterable[Tensor] = ()) -> None:
        self._sum: Tensor | None = None
        self._own = False
        for term in terms:
            self.add(term)

    def add(self, term: Tensor) -> None:
        if self._sum is None:
            self._sum = term
            return
        if self._sum.shape != term.shape:
            raise _unequal()
        if self._own and self._sum.dtype == term.dtype and not torch._C._are_functorch_transforms_active():
            self._sum += term
        else:
            self._sum, self._own = self._sum + term, True

    def sum(self) -> Tensor:
        """Raises `ValueError` for a sum of nothing."""
        if self._sum is None:
            raise ValueError("a sum of no tensors has no shape")
        return self._sum


@dataclass
class Group:
    """Candidates of equal structure, at most one of each edge: they run together."""

    places: list[Place]
    chains: list[Chain]

    @property
    def edges(self) -> tuple[int, ...]:
        return tuple(edge for edge, _ in self.places)


@dataclass
class Branch:
    """Candidates that have begun alike: `layers` are their layers of one depth, of which one stands for all."""

    layers: list[nn.Module] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    ends: list[Column] = field(default_factory=list)
    """Candidates that have ended here."""

    @property
    def columns(self) -> list[Column]:
        """All that end here or further on, in the order in which they do."""
        return [*self.ends, *(column for inner in self.branches for column in inner.columns)]

    def run(self, x: Tensor) -> Tensor:
        if not self.layers:
            return x
        if isinstance(self.layers[0], nn.BatchNorm2d):
            return shared_norm(self.layers, x)  # type: ignore[arg-type]  # equal keys are of equal types
        return as_it_is(self.layers[0], x)


class SourcePlan:
    """How the mixed operations on the out-edges of one node are evaluated, all on the same input."""

    def __init__(self, edges: Sequence[MixedOperation]) -> None:
        self.edges = list(edges)
        self.alone: list[Place] = []
        """Candidates that run as they are."""
        members: list[tuple[Place, Chain]] = []
        for i, edge in enumerate(edges):
            candidates = list(candidates_of(edge).values())
            silent = [is_zero(candidate) for candidate in candidates]
            for j, candidate in enumerate(candidates):
                layers = chain(candidate)
                if silent[j] and not (all(silent) and j == 0):  # an edge of nothing else still has a shape
                    continue
                if layers is None:
                    self.alone.append((i, j))
                else:
                    members.append(((i, j), layers))
        self.root = _branch([], members)
        self._foreign = any(_foreign(layer) for _, layers in members for layer in layers)
        """Whether layers could write into what they share, against what they state."""
        columns = self.root.columns
        self.mixed = sorted({edge for column in columns for edge in column})
        """The edges that have a candidate in some column."""
        self._mixture = tuple((e, column[e]) if e in column else None for e in self.mixed for column in columns)
        self._begin = [0, *accumulate(len(candidates_of(edge)) for edge in edges)]
        """Where the mixing weights of an edge begin, among those of all edges."""
        self._positions: dict[Hashable, Tensor] = {}
        """Where some weights lie among those of all, by what `_weights` was asked for."""

    def __call__(self, x: Tensor, weights: Sequence[Tensor], totals: Sequence[Total]) -> None:
        """Add each edge's output, given its mixing weights, to the total of the node that it leads to."""
        if not weights:
            return
        flat = torch.cat([*weights, weights[0].new_zeros(1)])
        wide: dict[tuple[int, ...], Total] = defaultdict(Total)
        shared: list[Tensor] = []
        self._walk(self.root, x, flat, wide, shared)
        for edges, outs in wide.items():
            for edge, out in zip(edges, outs.sum().chunk(len(edges), 1), strict=True):
                totals[edge].add(out)
        if shared:
            for edge, out in zip(self.mixed, self._mix(shared, flat), strict=True):
                totals[edge].add(out)
        for i, j in self.alone:
            candidate = list(candidates_of(self.edges[i]).values())[j]
            totals[i].add(weights[i][j] * as_it_is(candidate, x))

    def _walk(
        self,
        branch: Branch,
        x: Tensor,
        flat: Tensor,
        wide: dict[tuple[int, ...], Total],
        shared: list[Tensor],
    ) -> None:
        """Add to `wide`, by their edges, outputs that stand side by side, and to `shared` those of the columns."""
        x = branch.run(x)
        if self._foreign:
            x = countable(x)
        shared += [x] * len(branch.ends)
        unchanged = Unchanged(*([x] if self._foreign else []))
        narrow = Wide(x)
        for group in branch.groups:
            scale = partial(self._weights, flat, tuple(group.places))
            wide[group.edges].add(run_chains(group.chains, narrow, scale))
            _require(unchanged, group.chains[0][0])
        for inner in branch.branches:
            self._walk(inner, x, flat, wide, shared)
            _require(unchanged, inner.layers[0])

    def _mix(self, shared: list[Tensor], flat: Tensor) -> list[Tensor]:
        """For each of the edges `mixed` the mixture of what edges share: one matrix product for all."""
        if any(x.shape != shared[0].shape for x in shared):
            raise _unequal()
        matrix = self._weights(flat, self._mixture).view(len(self.mixed), len(shared))
        last = is_last(shared[0])  # permuted, images are stacked as they lie
        stacked = torch.stack([x.permute(0, 2, 3, 1) if last else x for x in shared])
        outs = (matrix @ stacked.flatten(1)).view(len(self.mixed), *stacked.shape[1:]).unbind()
        return [out.permute(0, 3, 1, 2) if last else out for out in outs]

    def _weights(self, flat: Tensor, places: tuple[Place | None, ...], times: int = 1) -> Tensor:
        """The mixing weights of candidates, each so many times over, and zero for None; `flat` holds those of all."""
        known = (places, times, flat.device)
        if known not in self._positions:
            found = [self._begin[-1] if place is None else self._begin[place[0]] + place[1] for place in places]
            positions = torch.tensor(found, device=flat.device).repeat_interleave(times)
            if type(positions) is not Tensor or torch._C._are_functorch_transforms_active():
                return flat.index_select(0, positions)  # what a transform makes ends with it
            self._positions[known] = positions
        return flat.index_select(0, self._positions[known])


def _unequal() -> SpaceError:
    return SpaceError("tensors that are added up must have equal shapes")


def _foreign(layer: nn.Module) -> bool:
    """Whether some of a layer is neither of torch nor of this package."""
    return any(type(module).__module__.partition(".")[0] not in ("torch", "nas") for module in layer.modules())


def _require(unchanged: Unchanged, layer: nn.Module) -> None:
    if not unchanged.holds():
        raise SpaceError(f"the layer {type(layer).__name__}, with `channelwise = True`, must not change its input")


def _branch(layers: list[nn.Module], members: Sequence[tuple[Place, Chain]]) -> Branch:
    """The plan of candidates that have these layers behind them, and each its chain of layers before it."""
    branch = Branch(layers, ends=list(map(dict, _apart(place for place, rest in members if not rest))))
    begun: dict[Hashable, list[tuple[Place, Chain]]] = defaultdict(list)
    alike: dict[Hashable, list[tuple[Place, Chain]]] = defaultdict(list)
    for place, rest in members:
        if rest and is_shared(rest[0]):
            begun[key(rest[0])].append((place, rest))
        elif rest:
            alike[tuple(map(key, rest))].append((place, rest))
    for same in begun.values():
        branch.branches.append(_branch([rest[0] for _, rest in same], [(place, rest[1:]) for place, rest in same]))
    for same in alike.values():
        chains = dict(same)
        branch.groups += [Group(list(places), [chains[place] for place in places]) for places in _apart(chains)]
    return branch


def _apart(places: Iterable[Place]) -> list[list[Place]]:
    """Places in lists that have each edge at most once."""
    lists: list[list[Place]] = []
    for _, same in groupby(sorted(places), key=lambda place: place[0]):
        for number, place in enumerate(same):
            if number == len(lists):
                lists.append([])
            lists[number].append(place)
    return lists
