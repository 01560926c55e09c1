"""The plan of all edges that leave one node, and their evaluation: what they share once, what is alike together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, groupby

import torch
from torch import Tensor, nn

from nas.mixed import MixedOperation
from nas.planner.layers import Wide, run_chains, shared_norm
from nas.planner.layout import is_last
from nas.planner.structure import Chain, chain, is_shared, is_zero, key

Place = tuple[int, int]
"""A candidate: the number of its edge, and its own in it."""
Shared = tuple[Tensor, list[Place]]
"""A tensor, and the candidates whose output it is."""


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
    ends: list[Place] = field(default_factory=list)
    """Candidates that have ended here."""

    def run(self, x: Tensor) -> Tensor:
        if not self.layers:
            return x
        if isinstance(self.layers[0], nn.BatchNorm2d):
            return shared_norm(self.layers, x)  # type: ignore[arg-type]  # equal keys are of equal types
        out: Tensor = self.layers[0](x)
        return out


class SourcePlan:
    """How the mixed operations on the out-edges of one node are evaluated, all on the same input."""

    def __init__(self, edges: Sequence[MixedOperation]) -> None:
        self.edges = list(edges)
        self.alone: list[Place] = []
        """Candidates that run as they are."""
        members: list[tuple[Place, Chain]] = []
        for i, edge in enumerate(edges):
            candidates = list(edge.children())
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
        self._begin = [0, *accumulate(len(list(edge.children())) for edge in edges)]
        """Where the mixing weights of an edge begin, among those of all edges."""
        self._positions: dict[Hashable, Tensor] = {}
        """Where some weights lie among those of all, by what `_weights` was asked for."""

    def __call__(self, x: Tensor, weights: Sequence[Tensor]) -> list[Tensor | None]:
        """The output of each edge, given its mixing weights; None for an edge without a connection."""
        if not weights:
            return []
        flat = torch.cat([*weights, weights[0].new_zeros(1)])
        outputs = _Sums(len(self.edges))
        shared: list[Shared] = []
        self._walk(self.root, x, flat, outputs, shared)
        if shared:
            self._mix(shared, flat, outputs)
        for i, j in self.alone:
            candidate = list(self.edges[i].children())[j]
            outputs.add(i, weights[i][j] * candidate(x))
        return outputs.finished()

    def _walk(self, branch: Branch, x: Tensor, flat: Tensor, outputs: _Sums, shared: list[Shared]) -> None:
        """Add what runs together to `outputs`, and what edges share to `shared`."""
        x = branch.run(x)
        if branch.ends:
            shared.append((x, branch.ends))
        wide = Wide(x)
        for group in branch.groups:
            scale = partial(self._weights, flat, tuple(group.places))
            outputs.add_wide(group.edges, run_chains(group.chains, wide, scale))
        for inner in branch.branches:
            self._walk(inner, x, flat, outputs, shared)

    def _mix(self, shared: list[Shared], flat: Tensor, outputs: _Sums) -> None:
        """Add to each edge the mixture of what the edges share: one matrix product for all."""
        columns = [(x, dict(places)) for x, ends in shared for places in _apart(ends)]
        edges = sorted({edge for _, places in columns for edge in places})
        places = tuple((e, places[e]) if e in places else None for e in edges for _, places in columns)
        matrix = self._weights(flat, places).view(len(edges), len(columns))
        last = is_last(columns[0][0])  # permuted, images are stacked as they lie
        stacked = torch.stack([x.permute(0, 2, 3, 1) if last else x for x, _ in columns])
        mixed = (matrix @ stacked.flatten(1)).view(len(edges), *stacked.shape[1:])
        for edge, out in zip(edges, mixed.unbind(), strict=True):
            outputs.add(edge, out.permute(0, 3, 1, 2) if last else out)

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


class _Sums:
    """The outputs of edges as sums of what comes in one by one, or for several edges side by side."""

    def __init__(self, edges: int) -> None:
        self.totals: list[Tensor | None] = [None] * edges
        self.wide: dict[tuple[int, ...], Tensor] = {}

    def add(self, edge: int, term: Tensor) -> None:
        total = self.totals[edge]
        self.totals[edge] = term if total is None else total + term

    def add_wide(self, edges: tuple[int, ...], term: Tensor) -> None:
        total = self.wide.get(edges)
        self.wide[edges] = term if total is None else total + term

    def finished(self) -> list[Tensor | None]:
        for edges, total in self.wide.items():
            for edge, part in zip(edges, total.chunk(len(edges), 1), strict=True):
                self.add(edge, part)
        return self.totals


def _branch(layers: list[nn.Module], members: Sequence[tuple[Place, Chain]]) -> Branch:
    """The plan of candidates that have these layers behind them, and each its chain of layers before it."""
    branch = Branch(layers, ends=[place for place, rest in members if not rest])
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
