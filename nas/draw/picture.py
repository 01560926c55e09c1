"""Compute the content of a picture: boxes, frames and edges with positions.

Each group is laid out separately and is then one box in the group around it. Therefore no node outside a group is
inside its frame. Each edge has its own crossing point on the border. Separate components are placed side by side.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nas.draw.column_order import Edge, Size
from nas.draw.groups import IN, OUT, Attributes, connected_parts, edges_by_group, members_by_group
from nas.draw.layout import ENTERING, LEAVING, MARGIN, Point, Rect, layered
from nas.draw.row_wrapping import wrap_rows
from nas.draw.style import (
    DECISION,
    FAINT,
    FRAME,
    INK,
    LINE,
    MARK,
    Look,
    Text,
    edge_look,
    families,
    look,
    note,
    title,
    tooltip,
    wrap,
)
from nas.graph.network_graph import Graph

PAD = 16.0
"""Pixels between a frame and its content."""
WIDEST = 1100.0
"""Width in pixels of a row of separate parts, at most."""
LEAST = 4.0
"""Pixels between two edges at a box, at least."""
STACK = 4.0
"""Offset in pixels between the sheets of a stacked box."""


class Box(NamedTuple):
    """A node, or the label of an edge."""

    name: str
    rect: Rect
    look: Look
    label: bool = False


class Frame(NamedTuple):
    """A group: its rectangle, and the lines of text in its upper left corner."""

    name: str
    rect: Rect
    lines: tuple[Text, ...]
    stroke: str
    tooltip: str


class Line(NamedTuple):
    """A piece of an edge. `arrow` tells whether it ends at a box. Between points of unequal heights it is a curve."""

    points: tuple[Point, ...]
    colour: str
    arrow: bool
    source: str
    target: str
    weight: float = 1.3
    dashed: bool = False


class Picture(NamedTuple):
    """Everything to draw, in pixels. Outer frames precede inner ones."""

    title: str
    width: float
    height: float
    frames: tuple[Frame, ...] = ()
    lines: tuple[Line, ...] = ()
    boxes: tuple[Box, ...] = ()

    def moved(self, x: float, y: float) -> Picture:
        """Return a copy with all items moved by (x, y)."""
        return self._replace(
            frames=tuple(frame._replace(rect=_moved(frame.rect, x, y)) for frame in self.frames),
            lines=tuple(line._replace(points=tuple((a + x, b + y) for a, b in line.points)) for line in self.lines),
            boxes=tuple(box._replace(rect=_moved(box.rect, x, y)) for box in self.boxes),
        )


def make_picture(graph: Graph) -> Picture:
    """Lay out a graph made by `nas.graph.network_graph.build_graph`."""
    drawing = _Drawing(graph)
    top = drawing.levels.get("", {})
    pictures = [drawing.part(names, top) for names in connected_parts(drawing.members[""], top)]
    limit = max([WIDEST, *(part.width for part in pictures)])
    x = y = row = 0.0
    whole = Picture(graph.graph["space"], 0.0, 0.0)
    for part in pictures:
        if x and x + part.width > limit:
            x, y, row = 0.0, y + row + 2 * PAD, 0.0
        whole = _merged(whole, part.moved(x + PAD, y + PAD))
        x, row = x + part.width + 2 * PAD, max(row, part.height)
        whole = whole._replace(width=max(whole.width, x), height=y + row + 2 * PAD)
    return whole


class _Drawing:
    def __init__(self, graph: Graph) -> None:
        self.graph, self.colours = graph, families(graph)
        self.members, self.levels = members_by_group(graph), edges_by_group(graph)

    def part(self, names: Sequence[str], edges: Mapping[Edge, Attributes]) -> Picture:
        """Lay out some nodes of one group and the edges between them; `IN` and `OUT` are on its border."""
        nodes = self.graph.nodes
        inner = {name: self.group(name) for name in names if name in self.members}
        looks = {name: look(nodes[name], self.colours) for name in names if name in nodes and name not in inner}
        edges = {edge: attributes for edge, attributes in edges.items() if {*edge[:2]} <= {*names}}
        counts = Counter((edge[side], side) for edge in edges for side in (LEAVING, ENTERING))
        sizes = dict.fromkeys(names, Size(0.0, 0.0))
        sizes |= {name: size for name, (_, size, _) in inner.items()}
        sizes |= {name: _size(drawn, max(counts[name, 0], counts[name, 1])) for name, drawn in looks.items()}
        labels = {
            edge: edge_look(attributes, self.colours) if attributes else None for edge, attributes in edges.items()
        }
        fixed = {
            (edge, side): inner[edge[side]][2][edge[2:], side]
            for edge in edges
            for side in (LEAVING, ENTERING)
            if edge[side] in inner and (edge[2:], side) in inner[edge[side]][2]
        }
        first, last = ([name for name in names if name.startswith(end)] for end in (IN, OUT))
        layout = layered(sizes, {edge: label and _size(label) for edge, label in labels.items()}, first, last, fixed)
        if not first and not last:
            layout = wrap_rows(layout, WIDEST * 1.25)
        lines, boxes = [], [Box(name, layout.boxes[name], drawn) for name, drawn in looks.items()]
        for edge, label in labels.items():
            source, target = edge[:2]
            points = layout.paths[edge]
            (x, y), (end, height) = points[0], points[-1]
            if source in looks:
                points = ((x - _inset(looks[source], layout.boxes[source], y), y), *points)
            if target in looks:
                points = (*points, (end + _inset(looks[target], layout.boxes[target], height), height))
            points = tuple(point for point, _ in itertools.groupby(points))
            line = Line(points, label.stroke if label else LINE, target in looks, source, target)
            lines.append(line._replace(weight=1.1 * label.weight, dashed=label.dashed) if label else line)
            if label:
                boxes.append(Box(f"{source} {target}", layout.labels[edge], label, label=True))
        done = Picture("", layout.width, layout.height, (), tuple(lines), tuple(boxes))
        for name, (inside, _, _) in inner.items():
            done = _merged(done, inside.moved(layout.boxes[name].x, layout.boxes[name].y))
        return done

    def group(self, name: str) -> tuple[Picture, Size, dict[tuple[Any, int], float]]:
        """Return a group with its frame, its size, and the point at which each edge crosses its border."""
        edges = self.levels.get(name, {})
        ends = [end for edge in edges for end in edge[:2] if end.startswith((IN, OUT))]
        inside = self.part([*self.members[name], *ends], edges)
        lines = _heading(self.graph.nodes[name], max(360.0, inside.width))
        left, right = (0.0 if any(end.startswith(side) for end in ends) else PAD for side in (IN, OUT))
        width = max(left + inside.width + right, max((line.width for line in lines), default=0.0) + 2 * PAD)
        top = 0.75 * PAD + sum(line.height for line in lines)
        height = top + inside.height + PAD
        shift = left + (width - left - inside.width - right) / 2
        inside = inside.moved(shift, top)
        ports: dict[tuple[Any, int], float] = {}
        pieces = []
        for line in inside.lines:
            (_, start), (_, end) = line.points[0], line.points[-1]
            if line.source.startswith(IN):
                ports[(line.source.removeprefix(IN),), ENTERING] = start - height / 2
                line = line._replace(points=((0.0, start), *line.points), source=name)
            if line.target.startswith(OUT):
                ports[(line.target.removeprefix(OUT),), LEAVING] = end - height / 2
                line = line._replace(points=(*line.points, (width, end)), target=name)
            pieces.append(line)
        attributes = self.graph.nodes[name]
        stroke = MARK if note(attributes) else DECISION[1] if attributes["decision"] else FRAME
        frame = Frame(name, Rect(0.0, 0.0, width, height), lines, stroke, tooltip(attributes))
        framed = inside._replace(width=width, height=height, frames=(frame, *inside.frames), lines=tuple(pieces))
        return framed, Size(width, height), ports


def _size(look: Look, ports: int = 1) -> Size:
    width = max((line.width for line in look.lines), default=0.0)
    height = max(sum(line.height for line in look.lines) + 2 * look.pad, LEAST * (ports - 1) + 2 * MARGIN)
    extra, drop = (2 * STACK, STACK) if look.stacked else (0.0, 0.0)  # the front sheet is lower
    return Size(max(30.0, width + 18) + extra, height + extra, drop, drop)


def _inset(look: Look, rect: Rect, y: float) -> float:
    """Return the distance of a rounded border from the rectangle around it at a height, in pixels."""
    front = rect.height - (2 * STACK if look.stacked else 0.0)
    radius = min(look.radius, front / 2)
    beyond = abs(y - (rect.y + rect.height - front / 2)) - (front / 2 - radius)
    return radius - math.sqrt(max(0.0, radius**2 - beyond**2)) if beyond > 0 else 0.0


def _heading(attributes: Attributes, width: float) -> tuple[Text, ...]:
    colour = DECISION[1] if attributes["decision"] else INK
    lines = [Text(line, 12.5, True, colour) for line in wrap(title(attributes), width, 14)]
    lines += [Text(line, 11, colour=FAINT) for line in wrap(attributes["caption"], width, 11)]
    return (*lines, *(Text(line, 11, True, MARK) for line in wrap(note(attributes), width, 11)))


def _merged(outer: Picture, inner: Picture) -> Picture:
    return outer._replace(
        frames=outer.frames + inner.frames, lines=outer.lines + inner.lines, boxes=outer.boxes + inner.boxes
    )


def _moved(rect: Rect, x: float, y: float) -> Rect:
    return rect._replace(x=rect.x + x, y=rect.y + y)
