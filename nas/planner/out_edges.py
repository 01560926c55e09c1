"""Mixed operations on all edges that leave one node: shared layers run once, candidates of equal structure together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, groupby

import torch
from torch import Tensor, nn

from nas.errors import SpaceError
from nas.kernels.memory_format import is_last
from nas.kernels.torch_internals import transforms_active
from nas.planner.batched_layers import Wide, as_it_is, run_batched, shared_norm
from nas.planner.known_layers import Layers, is_shared, is_zero, key, layers_of
from nas.planner.running_sum import RunningSum, unequal_shapes
from nas.space.inplace import Unchanged, countable
from nas.space.mixed import MixedOperation, candidates_of

Place = tuple[int, int]
"""A candidate: the number of its edge, and its number in that edge."""
Column = dict[int, int]
"""Candidates of equal output, at most one of each edge: the number of the candidate by that of the edge."""
SideBySide = defaultdict[tuple[int, ...], RunningSum]
"""Sums of outputs that lie side by side, by the numbers of their edges."""


@dataclass
class Group:
    """Candidates of equal structure, at most one of each edge, that run together."""

    places: list[Place]
    layers: list[Layers]

    @property
    def edges(self) -> tuple[int, ...]:
        return tuple(edge for edge, _ in self.places)


@dataclass
class PrefixNode:
    """Node of a prefix tree over candidates: the layer they share at this depth, evaluated once."""

    layers: list[nn.Module] = field(default_factory=list)
    children: list[PrefixNode] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    ends: list[Column] = field(default_factory=list)
    """Candidates that end at this node."""

    @property
    def columns(self) -> list[Column]:
        """Return the candidates that end at this node or below, in the order of a walk."""
        return [*self.ends, *(column for child in self.children for column in child.columns)]

    def run(self, x: Tensor) -> Tensor:
        if not self.layers:
            return x
        if isinstance(self.layers[0], nn.BatchNorm2d):
            return shared_norm(self.layers, x)  # type: ignore[arg-type]  # equal keys have equal types
        return as_it_is(self.layers[0], x)


class OutEdges:
    """Evaluates the mixed operations on the out-edges of one node, all on the same input."""

    def __init__(self, edges: Sequence[MixedOperation]) -> None:
        self.edges = list(edges)
        self.alone: list[Place] = []
        """Candidates that run as a whole."""
        members: list[tuple[Place, Layers]] = []
        for i, edge in enumerate(edges):
            candidates = list(candidates_of(edge).values())
            silent = [is_zero(candidate) for candidate in candidates]
            for j, candidate in enumerate(candidates):
                layers = layers_of(candidate)
                if silent[j] and not (all(silent) and j == 0):  # an edge of zeros alone still has a shape
                    continue
                if layers is None:
                    self.alone.append((i, j))
                else:
                    members.append(((i, j), layers))
        self.root = _prefix_tree([], members)
        self._foreign = any(_foreign(layer) for _, layers in members for layer in layers)
        """Whether a layer could write into a shared input, although it must not."""
        columns = self.root.columns
        self.mixed = sorted({edge for column in columns for edge in column})
        """Edges that have a candidate in a column."""
        self._mixture = tuple((e, column[e]) if e in column else None for e in self.mixed for column in columns)
        self._begin = [0, *accumulate(len(candidates_of(edge)) for edge in edges)]
        """Offset of the mixing weights of each edge among those of all edges."""
        self._positions: dict[Hashable, Tensor] = {}
        """Indices of mixing weights among those of all edges, by the arguments of `_weights`."""

    def __call__(self, x: Tensor, weights: Sequence[Tensor], totals: Sequence[RunningSum]) -> None:
        """Add each edge's output, given its mixing weights, to the sum of the node that it leads to."""
        if not weights:
            return
        flat = torch.cat([*weights, weights[0].new_zeros(1)])
        wide: SideBySide = defaultdict(RunningSum)
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

    def _walk(self, node: PrefixNode, x: Tensor, flat: Tensor, wide: SideBySide, shared: list[Tensor]) -> None:
        """Add outputs that lie side by side to `wide`, by their edges, and outputs of columns to `shared`."""
        x = node.run(x)
        if self._foreign:
            x = countable(x)
        shared += [x] * len(node.ends)
        unchanged = Unchanged(*([x] if self._foreign else []))
        narrow = Wide(x)
        for group in node.groups:
            scale = partial(self._weights, flat, tuple(group.places))
            wide[group.edges].add(run_batched(group.layers, narrow, scale))
            _require(unchanged, group.layers[0][0])
        for child in node.children:
            self._walk(child, x, flat, wide, shared)
            _require(unchanged, child.layers[0])

    def _mix(self, shared: list[Tensor], flat: Tensor) -> list[Tensor]:
        """Return the mixture of shared outputs for each of the edges `mixed`, by one matrix product."""
        if any(x.shape != shared[0].shape for x in shared):
            raise unequal_shapes()
        matrix = self._weights(flat, self._mixture).view(len(self.mixed), len(shared))
        last = is_last(shared[0])  # stacks images without a copy into another format
        stacked = torch.stack([x.permute(0, 2, 3, 1) if last else x for x in shared])
        outs = (matrix @ stacked.flatten(1)).view(len(self.mixed), *stacked.shape[1:]).unbind()
        return [out.permute(0, 3, 1, 2) if last else out for out in outs]

    def _weights(self, flat: Tensor, places: tuple[Place | None, ...], times: int = 1) -> Tensor:
        """Return the mixing weights of candidates, each repeated, and zero for None; `flat` holds all weights."""
        known = (places, times, flat.device)
        if known not in self._positions:
            found = [self._begin[-1] if place is None else self._begin[place[0]] + place[1] for place in places]
            positions = torch.tensor(found, device=flat.device).repeat_interleave(times)
            if type(positions) is not Tensor or transforms_active():
                return flat.index_select(0, positions)  # a tensor of a transform must not outlive it
            self._positions[known] = positions
        return flat.index_select(0, self._positions[known])


def _foreign(layer: nn.Module) -> bool:
    """Return whether a part of a layer comes from neither PyTorch nor this package."""
    return any(type(module).__module__.partition(".")[0] not in ("torch", "nas") for module in layer.modules())


def _require(unchanged: Unchanged, layer: nn.Module) -> None:
    if not unchanged.holds():
        raise SpaceError(
            f"{type(layer).__name__}: a layer with `channelwise = True` must not change its input; copy it first"
        )


def _prefix_tree(layers: list[nn.Module], members: Sequence[tuple[Place, Layers]]) -> PrefixNode:
    """Return the prefix tree of candidates that have shared `layers` so far; `members` hold their remaining layers."""
    node = PrefixNode(layers, ends=list(map(dict, _apart(place for place, rest in members if not rest))))
    begun: dict[Hashable, list[tuple[Place, Layers]]] = defaultdict(list)
    alike: dict[Hashable, list[tuple[Place, Layers]]] = defaultdict(list)
    for place, rest in members:
        if rest and is_shared(rest[0]):
            begun[key(rest[0])].append((place, rest))
        elif rest:
            alike[tuple(map(key, rest))].append((place, rest))
    for same in begun.values():
        node.children.append(_prefix_tree([rest[0] for _, rest in same], [(place, rest[1:]) for place, rest in same]))
    for same in alike.values():
        remaining = dict(same)
        node.groups += [Group(list(places), [remaining[place] for place in places]) for places in _apart(remaining)]
    return node


def _apart(places: Iterable[Place]) -> list[list[Place]]:
    """Divide places into lists that have each edge at most once."""
    lists: list[list[Place]] = []
    for _, same in groupby(sorted(places), key=lambda place: place[0]):
        for number, place in enumerate(same):
            if number == len(lists):
                lists.append([])
            lists[number].append(place)
    return lists
