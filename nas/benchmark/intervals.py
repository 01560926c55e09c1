"""Means over seeds, with their intervals by Student's t."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Interval(NamedTuple):
    """A mean over the first dimension, the standard deviation, and the interval that has the true mean in it."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean over the first dimension, `(seeds, ...)`, and its confidence interval.

    With a single seed, the deviation and the bounds are not-a-number.

    Args:
        values: one value for each seed.
        level: the probability that the interval covers the true mean, if the means are normally distributed.

    References:
        Student, "The Probable Error of a Mean", Biometrika 1908.
    """
    given = np.asarray(values, float)
    count, mean = len(given), given.mean(axis=0)
    if count == 1:
        unknown = np.full_like(mean, math.nan)
        return Interval(mean, unknown, unknown, unknown)
    deviation = given.std(axis=0, ddof=1)
    reach = t_quantile((1 + level) / 2, count - 1) * deviation / math.sqrt(count)
    return Interval(mean, deviation, mean - reach, mean + reach)


def t_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t distribution, for a probability in [0.5, 1).

    Bisects the distribution function, which is a finite sum in whole degrees of freedom.

    References:
        Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4.
    """
    low, high = 0.0, 1.0
    while _within(high, degrees) < 2 * probability - 1:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < 2 * probability - 1 else (low, middle)
    return (low + high) / 2


def _within(t: float, degrees: int) -> float:
    """The probability that a value is between -t and t."""
    angle = math.atan(t / math.sqrt(degrees))
    odd = degrees % 2
    term = total = math.cos(angle) if odd else 1.0
    for k in range(2 + odd, degrees - 1, 2):
        term *= (k - 1) / k * math.cos(angle) ** 2
        total += term
    if degrees == 1:
        return 2 * angle / math.pi
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
