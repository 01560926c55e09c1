"""How alike two columns rank the same networks."""

from __future__ import annotations

import bisect
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

TOP = 0.2
"""The share of networks in which a correlation is called that of the top."""


class Correlation(NamedTuple):
    """Rank correlations of scores with results, in [-1, 1]; not-a-number if all scores are equal."""

    networks: int
    """How many networks were compared."""
    spearman: float
    kendall: float
    top_spearman: float
    """Among the networks whose results are in the best fifth."""
    top_kendall: float


def correlate(scores: ArrayLike, results: ArrayLike) -> Correlation:
    """Return the rank correlations of scores with results, both of shape `(networks,)`, over all and over the top."""
    x, y = np.asarray(scores, float), np.asarray(results, float)
    best = np.argsort(-y, kind="stable")[: max(2, round(TOP * len(y)))]
    return Correlation(len(y), spearman(x, y), kendall(x, y), spearman(x[best], y[best]), kendall(x[best], y[best]))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Return Spearman's rank correlation, with mean ranks of equal values; not-a-number if all of them are equal."""
    a, b = (ranks(values) for values in (x, y))
    return _ratio((a - a.mean()) @ (b - b.mean()), float(a.var() * b.var()) ** 0.5 * len(a))


def kendall(x: ArrayLike, y: ArrayLike) -> float:
    """Return Kendall's tau-b, which corrects for equal values; not-a-number if all of them are equal.

    Sorts by the first values, then counts how many pairs of the second ones are out of order.

    References:
        Kendall, "The Treatment of Ties in Ranking Problems", Biometrika 1945. Knight, "A Computer Method for
        Calculating Kendall's Tau with Ungrouped Data", JASA 1966.
    """
    a, b = (ranks(values) for values in (x, y))
    out_of_order, before = 0, list[float]()
    for place, value in enumerate(b[np.lexsort((b, a))].tolist()):
        out_of_order += place - bisect.bisect_right(before, value)
        bisect.insort(before, value)
    pairs = len(a) * (len(a) - 1) // 2
    first, second, both = _equal_pairs(a), _equal_pairs(b), _equal_pairs(np.stack([a, b]))
    surplus = pairs - first - second + both - 2 * out_of_order
    return _ratio(surplus, math.sqrt(pairs - first) * math.sqrt(pairs - second))


def ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Return the ranks from 1, in which equal values have the mean of their ranks."""
    _, group, counts = np.unique(np.asarray(values, float), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[group]


def _equal_pairs(values: NDArray[np.float64]) -> int:
    """The number of pairs of equal values, or of equal columns."""
    counts = np.unique(values, axis=-1, return_counts=True)[1].tolist()
    return sum(count * (count - 1) // 2 for count in counts)


def _ratio(value: float, size: float) -> float:
    return float(value) / size if size else float("nan")
