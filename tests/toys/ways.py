"""Whether the ways of two drawn edges run over one another."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

Point = tuple[float, float]

NEAR = 0.01
"""Pixels that nobody sees."""


def shared(one: Sequence[Point], other: Sequence[Point]) -> bool:
    """Whether they share more than points: parts of a straight piece, or a whole curve.

    Two curves between different ends that start and end level have no more than points in common.
    """
    return any(_shared(a, b) for a in itertools.pairwise(one) for b in itertools.pairwise(other))


def _shared(a: tuple[Point, Point], b: tuple[Point, Point]) -> bool:
    ends = [abs(x - y) < NEAR for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)]
    if all(ends):
        return abs(a[0][0] - a[1][0]) + abs(a[0][1] - a[1][1]) > NEAR
    for along, across in ((0, 1), (1, 0)):  # level, upright
        if max(abs(point[across] - a[0][across]) for point in (*a, *b)) < NEAR:
            low, high = ([sorted(point[along] for point in piece)[side] for piece in (a, b)] for side in (0, 1))
            return min(high) - max(low) > NEAR
    return False
