"""Student's t, against SciPy's, and intervals against how often they cover the truth."""

from __future__ import annotations

import numpy as np
import pytest

from nas.benchmark.intervals import t_interval, t_quantile

stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 19, 30, 499])
def test_quantiles(degrees: int) -> None:
    for probability in (0.5, 0.6, 0.9, 0.975, 0.995):
        expected = stats.t.ppf(probability, degrees)
        assert t_quantile(probability, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=(5, 4000))
    found = t_interval(values)
    assert found.mean == pytest.approx(values.mean(axis=0))
    assert found.deviation == pytest.approx(values.std(axis=0, ddof=1))
    covered = ((found.low < 3) & (found.high > 3)).mean()
    assert covered == pytest.approx(0.95, abs=0.012)
    wide = t_interval(values, 0.99)
    assert ((wide.low < 3) & (wide.high > 3)).mean() == pytest.approx(0.99, abs=0.006)


def test_a_single_seed_has_no_interval() -> None:
    found = t_interval([[1.0, 2.0]])
    assert found.mean.tolist() == [1, 2]
    assert np.isnan([found.deviation, found.low, found.high]).all()
