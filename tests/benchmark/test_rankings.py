"""Rank correlations, against SciPy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.benchmark.rankings import correlate, kendall, ranks, spearman

stats = pytest.importorskip("scipy.stats")
FEW = st.integers(0, 6)


def test_ranks_of_equal_values_are_their_mean() -> None:
    assert ranks([30, 10, 20, 20]).tolist() == [4, 1, 2.5, 2.5]


def test_signs() -> None:
    x = [1.0, 2.0, 3.0, 4.0, 4.0]
    assert spearman(x, [10, 20, 30, 40, 40]) == pytest.approx(1)
    assert kendall(x, [5, 4, 3, 2, 2]) == pytest.approx(-1)


@given(pairs=st.lists(st.tuples(FEW, FEW), min_size=2, max_size=40))
def test_both_equal_an_independent_implementation(pairs: list[tuple[int, int]]) -> None:
    x, y = zip(*pairs, strict=True)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(spearman(x, y))
        assert math.isnan(kendall(x, y))
        return
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)


def test_the_top_is_the_best_fifth_by_results() -> None:
    results = np.arange(100.0)
    scores = np.where(results < 80, results, 180 - results)  # right, but for the best twenty
    found = correlate(scores, results)
    assert found.networks == 100
    assert found.top_spearman == pytest.approx(-1)
    assert found.top_kendall == pytest.approx(-1)
    assert found.spearman == pytest.approx(stats.spearmanr(scores, results).statistic)
    assert found.kendall > 0.9
