"""Layered layout on random graphs, and least squares against another implementation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from nas.draw.layout import ENTERING, LEAVING, Rect, Size, apart, layered
from ways import together

SIDES, PORTS = st.floats(10, 90), st.floats(-0.5, 0.5)
SIZES = st.tuples(SIDES, SIDES, PORTS, PORTS).map(lambda s: Size(s[0], s[1], s[1] * s[2], s[1] * s[3]))


@st.composite
def dags(draw: st.DrawFn) -> tuple[dict[str, Size], dict[tuple[str, str], Size | None]]:
    count = draw(st.integers(1, 9))
    nodes = {str(i): draw(SIZES) for i in range(count)}
    pairs = list(itertools.combinations(nodes, 2))
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    return nodes, {pair: draw(st.none() | SIZES) for pair in chosen}


def apart_from(a: Rect, b: Rect) -> bool:
    return (
        a.x + a.width <= b.x + 1e-6
        or b.x + b.width <= a.x + 1e-6
        or a.y + a.height <= b.y + 1e-6
        or b.y + b.height <= a.y + 1e-6
    )


@given(dags())
def test_no_overlap_and_no_edge_through_anything(
    graph: tuple[dict[str, Size], dict[tuple[str, str], Size | None]],
) -> None:
    nodes, edges = graph
    layout = layered(nodes, edges)
    assert layout.boxes.keys() == nodes.keys()
    assert layout.labels.keys() == {edge for edge, label in edges.items() if label}
    rects = [*layout.boxes.values(), *layout.labels.values()]
    assert all(apart_from(a, b) for a, b in itertools.combinations(rects, 2))
    assert all((rect.width, rect.height) == nodes[name][:2] for name, rect in layout.boxes.items())
    assert all(0 <= r.x <= r.x + r.width <= layout.width + 1e-6 for r in rects)
    assert all(-1e-6 <= r.y <= r.y + r.height <= layout.height + 1e-6 for r in rects)
    for edge, points in layout.paths.items():
        source, target = (layout.boxes[end] for end in edge)
        assert points[0][0] == pytest.approx(source.x + source.width)
        assert points[-1][0] == pytest.approx(target.x)
        for side, (rect, (_, y)) in enumerate(((source, points[0]), (target, points[-1]))):
            assert rect.y <= y <= rect.y + rect.height
            size, alone = nodes[edge[side]], sum(other[side] == edge[side] for other in edges) == 1
            port = size.inlet if side else size.outlet
            if alone and abs(port) < size.height / 4:
                assert y == pytest.approx(rect.y + rect.height / 2 + port), "the only edge is where it is wanted"
        others = [rect for name, rect in [*layout.boxes.items(), *layout.labels.items()] if name != edge]
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            piece = Rect(x0, min(y0, y1), x1 - x0, abs(y1 - y0))
            assert x0 <= x1
            assert all(apart_from(piece, rect) for rect in others)


@given(dags())
def test_no_two_edges_share_a_piece(graph: tuple[dict[str, Size], dict[tuple[str, str], Size | None]]) -> None:
    paths = layered(*graph).paths
    for one, other in itertools.combinations(paths, 2):
        assert together(paths[one], paths[other], near=0.01) < 1.0, (one, other)


def test_parallel_edges_have_ways_of_their_own() -> None:
    nodes = dict.fromkeys("ab", Size(20, 20))
    paths = layered(nodes, {("a", "b", "1"): None, ("a", "b", "2"): None}).paths
    assert together(paths["a", "b", "1"], paths["a", "b", "2"]) == 0.0


def test_edges_leave_in_the_order_of_where_they_go() -> None:
    nodes = dict.fromkeys(["a", "x", "y", "z", "end"], Size(20, 20))
    edges = {("a", name): None for name in "zyx"} | {(name, "end"): None for name in "yxz"}
    layout = layered(nodes, edges)  # type: ignore[arg-type]
    for end, ways in ((0, [("a", name) for name in "xyz"]), (-1, [(name, "end") for name in "xyz"])):
        other = {way: layout.boxes[way[1 + end]] for way in ways}
        order = sorted(ways, key=lambda way: layout.paths[way][end][1])
        assert order == sorted(ways, key=lambda way: layout.boxes[way[end + 1] if end == 0 else way[0]].y), other


def test_fixed_ports_stay() -> None:
    nodes = dict.fromkeys("ab", Size(20, 60))
    edge = ("a", "b")
    layout = layered(nodes, {edge: None}, fixed={(edge, LEAVING): -25.0, (edge, ENTERING): 11.0})
    heights = [layout.boxes[name].y + 30 for name in edge]
    assert [layout.paths[edge][0][1], layout.paths[edge][-1][1]] == pytest.approx([heights[0] - 25, heights[1] + 11])


def test_long_edges_are_level() -> None:
    nodes = dict.fromkeys("abcde", Size(20, 20))
    edges = {**dict.fromkeys(itertools.pairwise("abcde")), ("a", "e"): None}
    levels = {round(y, 6) for _, y in layered(nodes, edges).paths["a", "e"][1:-1]}  # type: ignore[arg-type]
    assert len(levels) <= 2


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(0.1, 9), st.floats(0, 20)), min_size=1, max_size=12))
def test_apart_is_weighted_least_squares(items: list[tuple[float, float, float]]) -> None:
    wanted, weights, gaps = (list(column) for column in zip(*items, strict=True))
    offsets = np.cumsum([0.0, *gaps[:-1]])
    expected = isotonic_regression(np.array(wanted) - offsets, weights=np.array(weights)).x + offsets
    assert apart(wanted, weights, gaps[:-1]) == pytest.approx(list(expected))
