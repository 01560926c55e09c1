"""The confidence interval of a mean over clips."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import msgspec

LEAST = 3
"""The least number of clips for an interval; that of two clips reaches nine standard deviations to each side."""


class Interval(msgspec.Struct, frozen=True):
    """A mean over clips and the ends of its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def confidence_interval(values: Sequence[float]) -> Interval | None:
    """Compute the mean over clips with its 95 % interval by Student's t.

    Give one value per clip: frames and rainy versions of one clip are correlated and make the interval too narrow. The
    interval has its 95 % coverage if the scores of clips are normally distributed.

    Args:
        values: one score per clip.

    Returns:
        The interval; None for fewer than three clips, or for scores that are not finite.
    """
    if len(values) < LEAST or not all(map(math.isfinite, values)):
        return None
    mean = statistics.fmean(values)
    reach = quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - reach, mean + reach)


def quantile(freedom: int, confidence: float = 0.95) -> float:
    """Return the t with P(-t < T < t) = `confidence` for Student's distribution of `freedom` degrees.

    The method is bisection of the exact finite sums over atan(t / sqrt(freedom)).

    References:
        Abramowitz and Stegun, "Handbook of Mathematical Functions", 1964, eqs. 26.7.3 and 26.7.4.
    """
    low, high = 0.0, math.pi / 2
    while (angle := (low + high) / 2) not in (low, high):
        low, high = (angle, high) if _within(angle, freedom) < confidence else (low, angle)
    return math.sqrt(freedom) * math.tan(high)


def _within(angle: float, freedom: int) -> float:
    """The probability between -t and t, where t is `sqrt(freedom) tan(angle)`."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= k / (k + 1) * cosine**2
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
