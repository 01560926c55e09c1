"""First half of a layered layout: the column of each node, the lanes of edges, and the order within each column."""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from typing import NamedTuple

Edge = tuple[str, str] | tuple[str, str, str]
"""Source and target; a third item distinguishes parallel edges."""
Lane = tuple[Edge, int]
"""The place of an edge in a column that it passes."""
Item = str | Lane
"""A node or a lane in a column."""

LANE = 6.0
"""Height in pixels of an edge that passes a column."""
SWEEPS = 24
"""Passes over all columns that reduce crossings, at most."""
STARTS = 8
"""Initial orders to try, at most, until no edges cross. The first is the order of the arguments."""


class Size(NamedTuple):
    """Size of a node in pixels. Edges enter and leave around `inlet` and `outlet` pixels below its middle."""

    width: float
    height: float
    inlet: float = 0.0
    outlet: float = 0.0


class ColumnOrder(NamedTuple):
    """Items of each column from top to bottom, items along each edge including its ends, and sizes of items."""

    columns: list[list[Item]]
    chains: dict[Edge, list[Item]]
    sizes: dict[Item, Size]


def order_columns(
    nodes: Mapping[str, Size], edges: Mapping[Edge, Size | None], first: Container[str] = (), last: Collection[str] = ()
) -> ColumnOrder:
    """Assign an acyclic graph to columns; the arguments are those of `nas.draw.layout.layered`."""
    step = 2 if any(edges.values()) else 1  # every second column holds labels
    ranks = _ranks(nodes, edges, step, first, last)
    best, fewest = ColumnOrder([], {}, {}), math.inf
    shuffle = random.Random(0).shuffle
    names, pairs = list(nodes), list(edges.items())
    for _ in range(STARTS):
        chains = {edge: _chain(edge, ranks) for edge, _ in pairs}
        lanes = _lanes(chains, dict(pairs))
        used = {*ranks.values(), *(rank for (_, rank), size in lanes.items() if size.width)}
        chains = {e: [i for i in chain if isinstance(i, str) or i[1] in used] for e, chain in chains.items()}
        columns, crossings = _ordered(names, chains, ranks)
        if crossings < fewest:
            sizes: dict[Item, Size] = dict(lanes.items())
            sizes.update(nodes.items())
            best, fewest = ColumnOrder(columns, chains, sizes), crossings
        if not fewest:
            break
        shuffle(names)
        shuffle(pairs)
    return best if _upright(best.columns, list(nodes)) else best._replace(columns=[c[::-1] for c in best.columns])


def _upright(columns: Sequence[Sequence[Item]], names: Sequence[str]) -> bool:
    """Return whether the first column with several nodes has them in the order of `names`, and not mirrored."""
    for column in columns:
        order = [names.index(item) for item in column if isinstance(item, str)]
        if len(order) > 1:
            return order[0] < order[-1]
    return True


def _ranks(
    nodes: Iterable[str], edges: Iterable[Edge], step: int, first: Container[str], last: Collection[str]
) -> dict[str, int]:
    """Return the column of each node: its longest path, or closer to its targets if edges do not get longer."""
    before: dict[str, set[str]] = {node: set() for node in nodes}
    after: dict[str, set[str]] = {node: set() for node in nodes}
    for source, target, *_ in edges:
        before[target].add(source)
        after[source].add(target)
    order = list(TopologicalSorter(before).static_order())
    start = step if any(node in first for node in order) else 0
    ranks: dict[str, int] = {}
    for node in order:
        floor = 0 if node in first else start
        ranks[node] = max([floor, *(ranks[source] + step for source in before[node])])
    for node in reversed(order):
        if before[node] and after[node] and len(after[node]) >= len(before[node]):
            ranks[node] = min(ranks[target] for target in after[node]) - step
    end = max((rank for node, rank in ranks.items() if node not in last), default=-step) + step
    return ranks | dict.fromkeys(last, end)


def _chain(edge: Edge, ranks: Mapping[str, int]) -> list[Item]:
    source, target, *_ = edge
    return [source, *((edge, rank) for rank in range(ranks[source] + 1, ranks[target])), target]


def _lanes(chains: Mapping[Edge, list[Item]], edges: Mapping[Edge, Size | None]) -> dict[Lane, Size]:
    """Return the sizes of all lanes. A label is placed in the emptiest label column that its edge passes."""
    sizes = {lane: Size(0, LANE) for chain in chains.values() for lane in chain if isinstance(lane, tuple)}
    load: dict[int, float] = {}
    for edge, chain in sorted(chains.items(), key=lambda item: len(item[1])):
        label = edges[edge]
        if label is not None:
            ranks = [lane[1] for lane in chain[1:-1:2] if isinstance(lane, tuple)]
            middle = sum(ranks) / len(ranks)
            rank = min((load.get(rank, 0.0), abs(rank - middle), rank) for rank in ranks)[-1]
            sizes[edge, rank] = label
            load[rank] = load.get(rank, 0.0) + label.height
    return sizes


def _ordered(
    nodes: Iterable[str], chains: Mapping[Edge, list[Item]], ranks: Mapping[str, int]
) -> tuple[list[list[Item]], int]:
    """Return the ordered columns and the number of crossings (barycentres, then swaps of neighbours)."""
    after: dict[Item, list[Item]] = {}
    before: dict[Item, list[Item]] = {}
    for chain in chains.values():
        for a, b in itertools.pairwise(chain):
            after.setdefault(a, []).append(b)
            before.setdefault(b, []).append(a)
    columns: list[list[Item]] = [[] for _ in range(max(ranks.values()) + 1)]
    seen: set[Item] = set()
    stack: list[Item] = [*nodes]
    stack.sort(key=lambda node: node in before)
    stack.reverse()  # sources are popped first, in their order
    while stack:
        item = stack.pop()
        if item not in seen:
            seen.add(item)
            columns[ranks[item] if isinstance(item, str) else item[1]].append(item)
            stack += reversed(after.get(item, []))
    columns = [column for column in columns if column]
    best, fewest = [list(column) for column in columns], _crossings(columns, after)
    idle = 0
    for sweep in range(SWEEPS):
        if not fewest or idle == 4:
            break
        forth = sweep % 2 == 0
        pairs = list(itertools.pairwise(columns if forth else reversed(columns)))
        for fixed, free in pairs:
            _sort(free, fixed, before if forth else after)
        for left, right in itertools.pairwise(columns):
            _swap(right, left, before)
            _swap(left, right, after)
        found = _crossings(columns, after)
        idle = 0 if found < fewest else idle + 1
        if found < fewest:
            best, fewest = [list(column) for column in columns], found
    return best, fewest


def _sort(free: list[Item], fixed: Sequence[Item], neighbours: Mapping[Item, list[Item]]) -> None:
    place = {item: i for i, item in enumerate(fixed)}
    centre = {item: i * len(fixed) / max(1, len(free)) for i, item in enumerate(free)}
    centre |= {
        item: sum(place[n] for n in neighbours[item]) / len(neighbours[item]) for item in free if item in neighbours
    }
    free.sort(key=centre.__getitem__)


def _swap(free: list[Item], fixed: Sequence[Item], neighbours: Mapping[Item, list[Item]]) -> None:
    place = {item: i for i, item in enumerate(fixed)}
    ends = {item: sorted(place[n] for n in neighbours.get(item, ())) for item in free}
    for i in range(len(free) - 1):
        a, b = ends[free[i]], ends[free[i + 1]]
        crossing = sum(len(b) and bisect.bisect_left(b, end) for end in a)
        swapped = sum(len(a) and bisect.bisect_left(a, end) for end in b)
        if swapped < crossing:
            free[i], free[i + 1] = free[i + 1], free[i]


def _crossings(columns: Sequence[Sequence[Item]], after: Mapping[Item, list[Item]]) -> int:
    count = 0
    for left, right in itertools.pairwise(columns):
        place = {item: i for i, item in enumerate(right)}
        ends: list[int] = []
        for item in left:
            new = sorted(place[n] for n in after.get(item, ()))
            count += sum(len(ends) - bisect.bisect_right(ends, end) for end in new)
            for end in new:
                bisect.insort(ends, end)
    return count
