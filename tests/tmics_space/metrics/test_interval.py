"""Confidence intervals: their quantiles against scipy, and how often they cover the true mean."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tmics_space.metrics.interval import confidence_interval, quantile


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 8, 24, 25, 99, 400])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_quantiles_are_those_of_scipy(freedom: int, confidence: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert quantile(freedom, confidence) == pytest.approx(stats.t.ppf((1 + confidence) / 2, freedom), rel=1e-10)


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, math.tan(0.475 * math.pi)), (2, 0.95 * math.sqrt(2 / (1 - 0.95**2)))]
)
def test_quantiles_in_closed_form(freedom: int, expected: float) -> None:
    assert quantile(freedom) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [3, 5, 8, 25])
def test_intervals_cover_the_true_mean_as_often_as_they_say(count: int) -> None:
    """Of 4,000 drawn from a normal law; the standard error of the share is .0034. Resampled ones cover 75 % for 3."""
    draws = np.random.default_rng(count).normal(30.0, 2.0, (4000, count))
    found = [confidence_interval(values) for values in draws.tolist()]
    covered = sum(each is not None and each.low <= 30.0 <= each.high for each in found) / len(found)
    assert 0.93 <= covered <= 0.97


def test_the_interval_of_three_clips() -> None:
    found = confidence_interval([29.0, 30.0, 31.0])
    assert found is not None
    assert found.mean == 30.0
    assert (found.high - found.mean, found.mean - found.low) == pytest.approx((4.302652729911275 / math.sqrt(3),) * 2)


@pytest.mark.parametrize("values", [[], [30.0], [30.0, 31.0], [30.0, 31.0, math.inf], [30.0, math.nan, 31.0, 32.0]])
def test_what_has_no_interval(values: list[float]) -> None:
    assert confidence_interval(values) is None
