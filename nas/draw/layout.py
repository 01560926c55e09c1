"""Layered layout from left to right (Sugiyama, Tagawa and Toda, 1981): positions of boxes, edge labels and edges.

No edge crosses a box: inside a column an edge is horizontal and has its own lane; its height changes between columns
only. The label of an edge is a box in its lane. Two edges never overlap, because each has its own port at both ends.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Container, Mapping, Sequence
from typing import NamedTuple

from nas.draw.column_order import LANE, SWEEPS, Edge, Item, Size, order_columns

NODES, LANES = 18.0, 8.0
"""Pixels between two nodes of a column, and between a lane and its neighbours."""
SLACK = 3.0
"""Pixels of `LANES` that may be given up to make an edge horizontal."""

PITCH, MARGIN = 7.0, 6.0
"""Pixels between two ports of a box, at most, and between a port and a corner."""

LEAVING, ENTERING = 0, 1
Ports = Mapping[tuple[Edge, int], float]
"""Position of the end of an edge at a node: pixels below the middle."""

Pulls = dict[Item, list[tuple[Item, float, float]]]
"""For each item its neighbours, the preferred offset below each in pixels, and the weight of this preference."""


class Rect(NamedTuple):
    """A rectangle: its upper left corner and its size, in pixels."""

    x: float
    y: float
    width: float
    height: float


Point = tuple[float, float]


class Layout(NamedTuple):
    """Boxes of nodes and of edge labels, and the points of each edge, in pixels.

    Between two points an edge is straight if they have equal heights, else a curve that starts and ends horizontally.
    `gaps` are the starts and ends of the spaces between columns.
    """

    width: float
    height: float
    boxes: dict[str, Rect]
    labels: dict[Edge, Rect]
    paths: dict[Edge, tuple[Point, ...]]
    gaps: tuple[tuple[float, float], ...]


def layered(
    nodes: Mapping[str, Size],
    edges: Mapping[Edge, Size | None],
    first: Container[str] = (),
    last: Collection[str] = (),
    fixed: Ports | None = None,
) -> Layout:
    """Lay out an acyclic graph.

    Args:
        nodes: the size of each node; among equally good orders, the order of this mapping is kept.
        edges: the size of each edge's label; None if it has none.
        first: nodes to put into the first column, without others.
        last: nodes to put into the last column, without others.
        fixed: ports that are given.
    """
    columns, chains, sizes = order_columns(nodes, edges, first, last)
    known = fixed or {}
    ports: Ports = {
        **{(edge, LEAVING): nodes[edge[0]].outlet for edge in edges},
        **{(edge, ENTERING): nodes[edge[1]].inlet for edge in edges},
        **known,
    }
    for _ in range(2):  # ports depend on heights, and heights on ports
        middle = _heights(columns, chains, sizes, ports)
        ports = {**_spread(chains, nodes, middle, ports), **known}
    for _ in range(4):  # straightening one edge makes room for the next
        _straighten(columns, chains, sizes, middle, ports)
    return _placed(columns, chains, sizes, middle, edges, ports)


def _spread(
    chains: Mapping[Edge, list[Item]], nodes: Mapping[str, Size], middle: Mapping[Item, float], ports: Ports
) -> dict[tuple[Edge, int], float]:
    """Return the ports of each node, from top to bottom in the order of the other ends of their edges."""
    sides: dict[tuple[str, int], list[Edge]] = {}
    for edge in chains:
        sides.setdefault((edge[0], LEAVING), []).append(edge)
        sides.setdefault((edge[1], ENTERING), []).append(edge)
    found = {}
    for (node, side), around in sides.items():
        size = nodes[node]
        ways = {edge: chains[edge][1:] if side == LEAVING else chains[edge][-2::-1] for edge in around}
        around.sort(key=lambda edge: (*(middle[item] for item in ways[edge]), ports[edge, 1 - side]))
        margin = min(MARGIN, size.height / 4)
        span = min(PITCH * (len(around) - 1), size.height - 2 * margin)
        top = (size.outlet if side == LEAVING else size.inlet) - span / 2
        top = min(max(top, margin - size.height / 2), size.height / 2 - margin - span)
        for i, edge in enumerate(around):
            found[edge, side] = top + span * i / max(1, len(around) - 1)
    return found


def _heights(
    columns: Sequence[Sequence[Item]], chains: Mapping[Edge, list[Item]], sizes: Mapping[Item, Size], ports: Ports
) -> dict[Item, float]:
    """Return the middle of each item: edges as horizontal as possible (weighted least squares), without overlap."""
    before: Pulls = {item: [] for column in columns for item in column}
    after: Pulls = {item: [] for item in before}
    for edge, chain in chains.items():
        for a, b in itertools.pairwise(chain):
            weight = (1.0, 3.0, 8.0)[isinstance(a, tuple) + isinstance(b, tuple)]
            drop = _leaving(ports, edge, a) - _entering(ports, edge, b)
            before[b].append((a, drop, weight))
            after[a].append((b, -drop, weight))
    both = {item: before[item] + after[item] for item in before}
    middle: dict[Item, float] = {}
    spaced = [(column, _gaps(column, sizes)) for column in columns]
    for column, gaps in spaced:
        middle.update(zip(column, itertools.accumulate(gaps, initial=-sum(gaps) / 2), strict=True))
    for sweep in range(4 * SWEEPS):
        old = middle.copy()
        pulls = both if sweep >= 8 else after if sweep % 2 else before  # one side alone: a long row converges at once
        for column, gaps in spaced[::-1] if sweep % 2 else spaced:
            weights = [sum(weight for *_, weight in pulls[item]) + 1e-3 for item in column]
            wanted = [
                (sum(w * (middle[other] + drop) for other, drop, w in pulls[item]) + 1e-3 * middle[item]) / weight
                for item, weight in zip(column, weights, strict=True)
            ]
            middle.update(zip(column, apart(wanted, weights, gaps), strict=True))
        if sweep >= 8 and max(abs(middle[item] - y) for item, y in old.items()) < 0.002:
            break
    return middle


def _leaving(ports: Ports, edge: Edge, item: Item) -> float:
    """Return how far below the middle of an item the edge leaves it, in pixels."""
    return ports[edge, LEAVING] if isinstance(item, str) else 0.0


def _entering(ports: Ports, edge: Edge, item: Item) -> float:
    return ports[edge, ENTERING] if isinstance(item, str) else 0.0


def _straighten(
    columns: Sequence[Sequence[Item]],
    chains: Mapping[Edge, list[Item]],
    sizes: Mapping[Item, Size],
    middle: dict[Item, float],
    ports: Ports,
) -> None:
    """Give the lanes of an edge one height if their neighbours leave room, preferably that of one of its ends."""
    reach: dict[Item, tuple[Item | None, float, Item | None, float]] = {}
    for column in columns:
        around: list[Item | None] = [None, *column, None]
        gaps = [0.0, *_gaps(column, sizes), 0.0]
        for i, item in enumerate(column):
            reach[item] = (around[i], gaps[i], around[i + 2], gaps[i + 1])

    def room(item: Item) -> tuple[float, float]:
        above, up, below, down = reach[item]
        low = -math.inf if above is None else middle[above] + up - SLACK
        return low, math.inf if below is None else middle[below] - down + SLACK

    for edge, chain in sorted(chains.items(), key=lambda item: len(item[1]), reverse=True):
        inside: list[Item | None] = [*chain[1:-1], None]
        ends = [middle[chain[0]] + ports[edge, LEAVING], middle[chain[-1]] + ports[edge, ENTERING]]
        run: list[Item] = []
        low, high = -math.inf, math.inf
        for lane in inside:
            above, below = (math.inf, -math.inf) if lane is None else room(lane)
            if run and max(low, above) > min(high, below):
                mean = sum(middle[item] for item in run) / len(run)
                label = len(run) == 1 and sizes[run[0]].width > 0  # best near its present height, among other labels
                level = [y for y in ends if low <= y <= high and (not label or abs(y - mean) < 2 * LANE)]
                middle.update(dict.fromkeys(run, level[0] if level else min(max(mean, low), high)))
                run, low, high = [], -math.inf, math.inf
            if lane is not None:
                run, low, high = [*run, lane], max(low, above), min(high, below)


def _gaps(column: Sequence[Item], sizes: Mapping[Item, Size]) -> list[float]:
    def boxes(a: Item, b: Item) -> bool:
        return isinstance(a, str) and isinstance(b, str) and sizes[a].height + sizes[b].height > 0

    return [
        (sizes[a].height + sizes[b].height) / 2 + (NODES if boxes(a, b) else LANES)
        for a, b in itertools.pairwise(column)
    ]


def apart(wanted: Sequence[float], weights: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """Return the positions closest to `wanted` (weighted least squares) with at least these gaps between them.

    References:
        Ayer et al., Ann. Math. Stat. 26, 1955: pool adjacent violators.
    """
    offsets = list(itertools.accumulate(gaps, initial=0.0))
    blocks: list[tuple[float, float, int]] = []
    for want, weight, offset in zip(wanted, weights, offsets, strict=True):
        block = (want - offset, weight, 1)
        while blocks and blocks[-1][0] > block[0]:
            mean, mass, count = blocks.pop()
            total = mass + block[1]
            block = ((mean * mass + block[0] * block[1]) / total, total, count + block[2])
        blocks.append(block)
    means = [mean for mean, _, count in blocks for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]


def _placed(
    columns: Sequence[Sequence[Item]],
    chains: Mapping[Edge, list[Item]],
    sizes: Mapping[Item, Size],
    middle: Mapping[Item, float],
    edges: Mapping[Edge, Size | None],
    ports: Ports,
) -> Layout:
    """Place the columns side by side, farther apart if edges between them are steep."""
    top = min(middle[item] - sizes[item].height / 2 for item in middle)
    bottom = max(middle[item] + sizes[item].height / 2 for item in middle)
    place = {item: i for i, column in enumerate(columns) for item in column}
    steep = [0.0] * len(columns)
    for edge, chain in chains.items():
        for a, b in itertools.pairwise(chain):
            rise = abs(middle[a] + _leaving(ports, edge, a) - middle[b] - _entering(ports, edge, b))
            steep[place[a]] = max(steep[place[a]], rise)
    widths = [max(sizes[item].width for item in column) for column in columns]
    lanes = [not any(isinstance(item, str) for item in column) for column in columns]
    least = [16.0 if a or b else 30.0 for a, b in itertools.pairwise(lanes)]
    gaps = [max(gap, min(70.0, 0.35 * rise)) for gap, rise in zip(least, steep, strict=False)]
    left = list(itertools.accumulate((w + g for w, g in zip(widths, gaps, strict=False)), initial=0.0))
    boxes: dict[Item, Rect] = {}
    for item, i in place.items():
        size = sizes[item]
        x = left[i] + (widths[i] - size.width) / 2
        boxes[item] = Rect(x, middle[item] - size.height / 2 - top, size.width, size.height)

    def path(edge: Edge, chain: Sequence[Item]) -> tuple[Point, ...]:
        points: list[Point] = []
        for i, item in enumerate(chain):
            column, size = place[item], sizes[item]
            start, end = left[column], left[column] + widths[column]
            y = middle[item] - top
            if i == 0:
                y += ports[edge, LEAVING]
                points += [(boxes[item].x + size.width, y), (end, y)]
            elif i == len(chain) - 1:
                y += ports[edge, ENTERING]
                points += [(start, y), (boxes[item].x, y)]
            else:
                points += [(start, y), (end, y)]
        return tuple(point for point, _ in itertools.groupby(points))

    labels = {
        edge: boxes[lane] for edge, chain in chains.items() for lane in chain[1:-1] if edges[edge] and sizes[lane].width
    }
    real = {item: box for item, box in boxes.items() if isinstance(item, str)}
    paths = {edge: path(edge, chain) for edge, chain in chains.items()}
    between = tuple((x + width, end) for x, width, end in zip(left, widths, left[1:], strict=False))
    return Layout(left[-1] + widths[-1], bottom - top, real, labels, paths, between)
