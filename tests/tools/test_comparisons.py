from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nas.errors import ConfigError


@pytest.fixture(scope="module")
def comparisons(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("comparisons")


def test_a_small_permutation_test_is_exact(comparisons: ModuleType) -> None:
    ours, others = [3.0, 5.5, 4.0, 6.0], [1.0, 2.5, 4.5]
    everything = ours + others
    found = [
        statistics.fmean(each) - (sum(everything) - sum(each)) / 3 for each in itertools.combinations(everything, 4)
    ]
    observed = found[0]
    low, high = (sum(sign * each >= sign * observed - 1e-9 for each in found) / len(found) for sign in (-1, 1))
    result = comparisons.difference(ours, others)
    assert result.p == pytest.approx(min(1, 2 * min(low, high)))
    assert result.mean == pytest.approx(observed)


def test_the_interval_is_that_of_welch(comparisons: ModuleType) -> None:
    ours, others = [3.0, 5.5, 4.0, 6.0, 5.0], [1.0, 2.5, 4.5]
    result = comparisons.difference(ours, others, level=0.9)
    expected = stats.ttest_ind(ours, others, equal_var=False).confidence_interval(0.9)
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high))
    assert comparisons.difference([2.0, 2.0], [1.0, 3.0]).high == pytest.approx(stats.t.ppf(0.975, 1))


def test_the_sign_is_that_of_ours_minus_others(comparisons: ModuleType) -> None:
    rng = np.random.default_rng(0)
    ours, others = rng.normal(1, 1, 20), rng.normal(0, 1, 20)
    result, turned = comparisons.difference(ours, others), comparisons.difference(others, ours)
    assert result.mean > 0
    assert (turned.mean, turned.low, turned.high) == pytest.approx((-result.mean, -result.high, -result.low))
    assert result.p == pytest.approx(stats.ttest_ind(ours, others).pvalue, abs=0.01)


def test_p_values_without_a_difference_are_uniform(comparisons: ModuleType) -> None:
    rng = np.random.default_rng(1)
    found = [comparisons.difference(rng.normal(size=5), rng.normal(size=4)).p for _ in range(100)]
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_groups_without_variance(comparisons: ModuleType) -> None:
    assert comparisons.difference([2.0, 2.0], [2.0, 2.0]) == (0.0, 0.0, 0.0, 1.0)
    with pytest.raises(ConfigError, match="at least 2 values, got 1 and 3"):
        comparisons.difference([1.0], [1.0, 2.0, 3.0])


def test_the_example_of_holm(comparisons: ModuleType) -> None:
    assert comparisons.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )


@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_adjusted_values_keep_the_order_and_are_between_raw_and_bonferroni(
    comparisons: ModuleType, values: list[float]
) -> None:
    named = {str(i): value for i, value in enumerate(values)}
    adjusted = comparisons.holm(named)
    assert list(adjusted) == list(named)
    for name, value in named.items():
        assert value <= adjusted[name] <= min(1.0, len(values) * value) or adjusted[name] == max(
            adjusted[other] for other in named if named[other] <= value
        )
    order = sorted(named, key=named.__getitem__)
    assert [adjusted[name] for name in order] == sorted(adjusted.values())
