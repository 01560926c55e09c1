"""The geometry of pictures: nothing overlaps, nothing is crossed, everything is inside and connected."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from nas.draw.groups import path
from nas.draw.layout import Rect
from nas.draw.picture import Line, Picture, make_picture
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype
from nas.graph.network_graph import Cells, Graph, build_graph
from nas.space.definition import Description, find_space
from ways import together

pytestmark = pytest.mark.xdist_group("pictures")  # whose fixture takes seconds
Drawn = tuple[Description, dict[str, Choice] | None]
PUBLISHED = ("darts-v1", "darts-v2", "fair-darts-d", "tmics-heavy", "tmics-light")


@pytest.fixture(scope="module")
def pictures(many: list[Drawn]) -> list[tuple[Graph, Picture]]:
    """All of `many`, every eighth with cells open and closed too, and published genotypes in all three ways."""
    ways: tuple[Cells, ...] = ("beside", "open", "closed")
    graphs = [build_graph(description, choices) for description, choices in many]
    graphs += [build_graph(description, choices, cells) for description, choices in many[1::8] for cells in ways[1:]]
    for name in PUBLISHED:
        genotype = Genotype.load(name)
        if "cells" in genotype.options:
            genotype.options["cells"] = 8
        description = find_space(genotype.space).describe(**genotype.options)
        graphs += [build_graph(description, genotype, cells) for cells in ways]
    return [(drawn, make_picture(drawn)) for drawn in graphs]


def overlap(a: Rect, b: Rect) -> bool:
    """Whether two boxes share more than their borders."""
    return (
        min(a.x + a.width, b.x + b.width) - max(a.x, b.x) > 0.01
        and min(a.y + a.height, b.y + b.height) - max(a.y, b.y) > 0.01
    )


def inside(a: Rect, b: Rect) -> bool:
    level = a.x >= b.x - 0.01 and a.x + a.width <= b.x + b.width + 0.01
    return level and a.y >= b.y - 0.01 and a.y + a.height <= b.y + b.height + 0.01


def pieces(line: Line) -> Iterator[Rect]:
    """Boxes that the line stays in: a curve that starts and ends level stays between its ends."""
    for (x0, y0), (x1, y1) in itertools.pairwise(line.points):
        yield Rect(min(x0, x1), min(y0, y1) - 0.5, abs(x1 - x0), abs(y1 - y0) + 1.0)


def test_no_boxes_overlap(pictures: list[tuple[Graph, Picture]]) -> None:
    for _, drawn in pictures:
        rects = [box.rect for box in drawn.boxes]
        assert not [pair for pair in itertools.combinations(rects, 2) if overlap(*pair)]


def test_no_edge_runs_through_a_box(pictures: list[tuple[Graph, Picture]]) -> None:
    for _, drawn in pictures:
        for line in drawn.lines:
            own = f"{line.source} {line.target}"  # the label of this very edge
            others = [box for box in drawn.boxes if not (box.label and box.name == own)]
            for piece, box in itertools.product(pieces(line), others):
                corner = box.name in (line.source, line.target) and piece.width <= 14.0 and piece.height == 1.0
                assert corner or not overlap(piece, box.rect)


def test_every_label_is_on_its_edge(pictures: list[tuple[Graph, Picture]]) -> None:
    for _, drawn in pictures:
        lines = {f"{line.source} {line.target}": line for line in drawn.lines}
        for box in drawn.boxes:
            if box.label:
                assert any(overlap(piece, box.rect) for piece in pieces(lines[box.name]))


def test_every_text_fits_its_box(pictures: list[tuple[Graph, Picture]]) -> None:
    for _, drawn in pictures:
        for box in drawn.boxes:
            assert max(line.width for line in box.look.lines) <= box.rect.width
            assert sum(line.height for line in box.look.lines) <= box.rect.height


def test_frames_hold_their_own_and_nothing_else(pictures: list[tuple[Graph, Picture]]) -> None:
    for drawn_graph, drawn in pictures:
        frames = {frame.name: frame.rect for frame in drawn.frames}
        rects = {box.name: box.rect for box in drawn.boxes if not box.label} | frames
        for frame, rect in frames.items():
            for name, other in rects.items():
                if name != frame and frame not in path(drawn_graph, name):
                    assert not overlap(rect, other) or name in path(drawn_graph, frame)
                else:
                    assert inside(other, rect)


def test_titles_of_frames_are_free(pictures: list[tuple[Graph, Picture]]) -> None:
    for _, drawn in pictures:
        for frame in drawn.frames:
            width = max((line.width for line in frame.lines), default=0.0)
            title = Rect(frame.rect.x + 12, frame.rect.y + 6, width, sum(line.height for line in frame.lines))
            assert inside(title, frame.rect)
            assert not [box for box in drawn.boxes if overlap(title, box.rect)]
            assert not [line for line in drawn.lines if any(overlap(title, piece) for piece in pieces(line))]


def test_edges_stay_out_of_foreign_frames(pictures: list[tuple[Graph, Picture]]) -> None:
    for drawn_graph, drawn in pictures:
        for line in drawn.lines:
            around = {*path(drawn_graph, line.source), *path(drawn_graph, line.target)}
            foreign = [frame.rect for frame in drawn.frames if frame.name not in around]
            assert not [rect for rect in foreign for piece in pieces(line) if overlap(rect, piece)]


def test_edges_connect_what_they_should(pictures: list[tuple[Graph, Picture]]) -> None:
    for drawn_graph, drawn in pictures:
        rects = {item.name: item.rect for item in (*drawn.boxes, *drawn.frames)}
        frames = {frame.name for frame in drawn.frames}
        borders: dict[tuple[str, bool], tuple[list[float], list[float]]] = {}
        following: dict[str, set[str]] = {}
        for line in drawn.lines:
            following.setdefault(line.source, set()).add(line.target)
            within = line.source in path(drawn_graph, line.target)  # a frame, seen from its inside
            beyond = line.target in path(drawn_graph, line.source)
            for name, (x, y), left, inner in (
                (line.source, line.points[0], within, within),
                (line.target, line.points[-1], not beyond, beyond),
            ):
                rect = rects[name]
                round_by = 0.0 if name in frames else 14.0  # the border of a box with round corners
                assert -0.01 <= (x - rect.x if left else rect.x + rect.width - x) <= round_by + 0.01
                assert rect.y <= y <= rect.y + rect.height
                borders.setdefault((name, left), ([], []))[inner].append(y)
        for (name, _), (outer, inner) in borders.items():
            if name in frames:  # the pieces outside and inside join
                assert sorted(outer) == pytest.approx(sorted(inner))
            assert all(b - a > 1.9 for a, b in itertools.pairwise(sorted(outer))), "every edge has a port of its own"
        for source, target in drawn_graph.edges:
            groups = {*path(drawn_graph, source), *path(drawn_graph, target)}
            reached, todo = set(), [source]
            while todo:
                reached.add(name := todo.pop())
                todo += [n for n in following.get(name, ()) if n not in reached and n in groups]
            assert target in reached


def test_no_two_edges_share_a_piece(pictures: list[tuple[Graph, Picture]]) -> None:
    known = 3 * len(PUBLISHED)  # they come last; of the others every fourth
    for drawn_graph, drawn in [*pictures[:-known:4], *pictures[-known:]]:
        for a, b in itertools.combinations(drawn.lines, 2):
            assert together(a.points, b.points) < 2.0, f"{drawn_graph.graph['space']}: {a} {b}"


def test_everything_is_inside(pictures: list[tuple[Graph, Picture]]) -> None:
    for _, drawn in pictures:
        whole = Rect(0.0, 0.0, drawn.width, drawn.height)
        rects = [item.rect for item in (*drawn.boxes, *drawn.frames)]
        assert all(inside(rect, whole) for rect in [*rects, *(p for line in drawn.lines for p in pieces(line))])


def test_flows_run_from_left_to_right(
    pictures: list[tuple[Graph, Picture]], many: list[Drawn], nesting: Description
) -> None:
    for drawn_graph, drawn in pictures[: len(many)]:
        if drawn_graph.graph["space"] != nesting.space.name:  # that one is folded into rows
            assert all(a[0] <= b[0] for line in drawn.lines for a, b in itertools.pairwise(line.points))


def test_the_two_routes_stand_side_by_side(restoration: Description) -> None:
    frames = {frame.name: frame.rect for frame in make_picture(build_graph(restoration)).frames}
    assert frames["dna"].x == pytest.approx(frames["cna"].x)
    assert frames["dna"].y + frames["dna"].height < frames["cna"].y


def test_long_flows_are_folded(nesting: Description) -> None:
    drawn = make_picture(build_graph(nesting))
    assert drawn.width < 1800
    assert any(b[0] < a[0] for line in drawn.lines for a, b in itertools.pairwise(line.points))


def test_equal_graphs_give_equal_pictures(classification: Description) -> None:
    assert make_picture(build_graph(classification)) == make_picture(build_graph(classification))
