"""Statistics of a study: differences between two groups of runs, corrected for their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from nas.errors import ConfigError

RESAMPLES = 9_999
"""Random divisions of a permutation test, if there are too many to try all of them."""


class Difference(NamedTuple):
    """The mean of one group minus that of another one, its confidence interval, and the p-value of no difference."""

    mean: float
    low: float
    high: float
    p: float


def difference(ours: Sequence[float], others: Sequence[float], *, level: float = 0.95, seed: int = 0) -> Difference:
    """Compare the means of two independent groups.

    The interval is Welch's, which allows for different variances. The p-value is that of a two-sided permutation test
    of the difference of the means: it assumes no distribution.

    Args:
        ours: values of a group, at least 2.
        others: values of another group, not paired with the first one, at least 2.
        level: of the interval.
        seed: of the random divisions.

    Raises:
        ConfigError: a group is too small.

    References:
        Welch, "The generalization of Student's problem when several different population variances are involved",
        Biometrika 1947. Pitman, "Significance tests which may be applied to samples from any populations", 1937.
    """
    if min(len(ours), len(others)) < 2:
        raise ConfigError(f"both groups must have at least 2 values, got {len(ours)} and {len(others)}")
    mean = float(np.mean(ours) - np.mean(others))
    errors = [float(np.var(group, ddof=1)) / len(group) for group in (ours, others)]
    reach = 0.0
    if sum(errors):
        freedom = sum(errors) ** 2 / sum(
            error**2 / (len(group) - 1) for error, group in zip(errors, (ours, others), strict=True)
        )
        reach = float(stats.t.ppf((1 + level) / 2, freedom)) * sum(errors) ** 0.5
    test = stats.permutation_test(
        (np.asarray(ours, float), np.asarray(others, float)),
        lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis),
        permutation_type="independent",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(seed),
    )
    return Difference(mean, mean - reach, mean + reach, float(test.pvalue))


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """Adjust p-values for the number of tests: rejecting those at most alpha errs anywhere with probability alpha.

    References:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 1979.
    """
    adjusted: dict[str, float] = {}
    least = 0.0
    for rank, name in enumerate(sorted(values, key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - rank) * values[name]))
        adjusted[name] = least
    return {name: adjusted[name] for name in values}
