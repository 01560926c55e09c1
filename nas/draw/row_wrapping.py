"""Break long layouts into rows, as lines of text are wrapped."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence

from nas.draw.layout import Layout, Point, Rect

BEND = 14.0
"""Pixels that an edge from one row to the next extends beyond both sides."""


def wrap_rows(layout: Layout, limit: float) -> Layout:
    """Break a layout into rows. A row can only end at a gap that a single edge crosses.

    Args:
        layout: the layout.
        limit: the width of a row to aim at, in pixels.

    Returns:
        The rows below one another. If the longest row would exceed two thirds of the width, the layout is unchanged.
    """
    cuts = _cuts(layout, limit)
    ends = [*(start for start, _ in cuts), layout.width]
    starts = [0.0, *(end for _, end in cuts)]
    if max(end - start for start, end in zip(starts, ends, strict=True)) > layout.width * 2 / 3:
        return layout
    tops, heights = [], []
    for start, end in zip(starts, ends, strict=True):
        rects = [rect for rect in (*layout.boxes.values(), *layout.labels.values()) if start <= rect.x <= end]
        levels = [y for points in layout.paths.values() for x, y in points if start <= x <= end]
        tops.append(min([*levels, *(rect.y for rect in rects)]))
        heights.append(max([*levels, *(rect.y + rect.height for rect in rects)]) - tops[-1])
    rows = list(itertools.accumulate((height + 3 * BEND for height in heights), initial=0.0))

    def moved(point: Point) -> Point:
        row = bisect.bisect_right(starts, point[0]) - 1
        return point[0] - starts[row] + BEND, point[1] - tops[row] + rows[row]

    right = max(end - start for start, end in zip(starts, ends, strict=True)) + 2 * BEND

    def path(points: Sequence[Point]) -> tuple[Point, ...]:
        folded = [moved(points[0])]
        for before, after in itertools.pairwise(points):
            for row in range(bisect.bisect_right(starts, before[0]), bisect.bisect_right(starts, after[0])):
                aisle = rows[row] - 1.5 * BEND
                y, x = folded[-1][1], ends[row - 1] - starts[row - 1] + 2 * BEND
                folded += [(x, y), (x, aisle), (0.0, aisle), (0.0, moved(after)[1])]
            folded.append(moved(after))
        return tuple(folded)

    def rect(old: Rect) -> Rect:
        return Rect(*moved((old.x, old.y)), old.width, old.height)

    return Layout(
        right,
        rows[-1] - 3 * BEND,
        {name: rect(old) for name, old in layout.boxes.items()},
        {edge: rect(old) for edge, old in layout.labels.items()},
        {edge: path(points) for edge, points in layout.paths.items()},
        (),
    )


def _cuts(layout: Layout, limit: float) -> list[tuple[float, float]]:
    """Return the gaps at which rows end, such that rows have about equal lengths."""
    single = [
        gap
        for gap in layout.gaps
        if sum(points[0][0] <= gap[0] and gap[1] <= points[-1][0] for points in layout.paths.values()) == 1
    ]
    rows = math.ceil(layout.width / limit)
    aims = [layout.width * row / rows for row in range(1, rows)] if single else []
    return sorted({min(single, key=lambda gap: abs(gap[0] - aim)) for aim in aims})
