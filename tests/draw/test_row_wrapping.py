"""Folding long layouts into rows."""

from __future__ import annotations

import itertools

from nas.draw.layout import Layout, Size, layered
from nas.draw.row_wrapping import wrap_rows


def row(count: int) -> Layout:
    names = [f"n{i}" for i in range(count)]
    return layered(dict.fromkeys(names, Size(100, 40)), dict.fromkeys(itertools.pairwise(names)))


def test_short_layouts_stay() -> None:
    layout = row(5)
    assert wrap_rows(layout, layout.width) == layout


def test_rows_are_of_about_equal_length_and_in_order() -> None:
    layout = wrap_rows(row(12), 800)
    heights = [rect.y for rect in layout.boxes.values()]
    assert heights == sorted(heights)
    assert [len(list(boxes)) for _, boxes in itertools.groupby(heights)] == [6, 6]
    assert layout.width < 900


def test_edges_between_rows_pass_between_them() -> None:
    layout = wrap_rows(row(12), 800)
    points = layout.paths["n5", "n6"]
    before, after = layout.boxes["n5"], layout.boxes["n6"]
    assert points[0] == (before.x + before.width, before.y + before.height / 2)
    assert points[-1] == (after.x, after.y + after.height / 2)
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in itertools.pairwise(points))  # no curves
    level = [y for (x0, y), (x1, _) in itertools.pairwise(points) if x1 < x0]
    assert len(level) == 1
    assert before.y + before.height < level[0] < after.y
    assert all(0 <= x <= layout.width for x, _ in points)


def test_no_fold_where_several_edges_lead_on() -> None:
    names = [f"n{i}" for i in range(12)]
    edges = {**dict.fromkeys(itertools.pairwise(names)), ("n0", "n11"): None}
    layout = layered(dict.fromkeys(names, Size(100, 40)), edges)  # type: ignore[arg-type]
    assert wrap_rows(layout, 400) == layout


def test_no_fold_that_gains_little() -> None:
    """Only the first edge stands alone: rows of two and of ten."""
    names = [f"n{i}" for i in range(12)]
    edges = {**dict.fromkeys(itertools.pairwise(names)), ("n1", "n11"): None}
    layout = layered(dict.fromkeys(names, Size(100, 40)), edges)  # type: ignore[arg-type]
    assert wrap_rows(layout, 400) == layout
