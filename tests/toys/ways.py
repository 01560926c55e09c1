"""How far the ways of two drawn edges run over one another."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

Point = tuple[float, float]

STEP = 0.25
"""Pixels from one place that is compared to the next."""


def together(one: Sequence[Point], other: Sequence[Point], near: float = 0.5) -> float:
    """The pixels of the longest piece on which they are no farther apart than `near`, drawn as SVG draws them."""
    pairs = itertools.product(itertools.pairwise(one), itertools.pairwise(other))
    return max((_together(a, b, near) for a, b in pairs), default=0.0)


def _together(a: tuple[Point, Point], b: tuple[Point, Point], limit: float) -> float:
    longest = 0.0
    for along, across in ((0, 1), (1, 0)):
        upright = [piece[0][0] == piece[1][0] for piece in (a, b)]
        if any(upright) != (along == 1) or (along == 1 and not all(upright)):
            continue
        low, high = ([sorted(point[along] for point in piece)[side] for piece in (a, b)] for side in (0, 1))
        least = max(min(p[across] for p in a), min(p[across] for p in b))
        most = min(max(p[across] for p in a), max(p[across] for p in b))
        if min(high) <= max(low) or most < least - limit:
            continue
        places = np.arange(max(low), min(high), STEP)
        near = np.abs(_heights(a, places, along) - _heights(b, places, along)) < limit
        runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[False], near, [False]]))))[::2]
        longest = max(longest, STEP * float(runs.max(initial=0)))
    return longest


def _heights(piece: tuple[Point, Point], places: np.ndarray, along: int) -> np.ndarray:
    """Where a piece is: straight, or the cubic curve between two heights that `nas.draw.svg` draws."""
    (x0, y0), (x1, y1) = piece
    if along == 1 or abs(y1 - y0) < 0.05:
        return np.full_like(places, x0 if along else y0)
    t = np.linspace(0, 1, 200)
    x = x0 + (x1 - x0) * (1.5 * t * (1 - t) ** 2 + 1.5 * t**2 * (1 - t) + t**3)
    y = y0 + (y1 - y0) * (3 * t**2 * (1 - t) + t**3)
    return np.interp(places, x, y) if x1 > x0 else np.interp(-places, -x, y)
