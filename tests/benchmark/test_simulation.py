"""Searches on tables: the incumbent, the regret, published results, and the time that they take."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from nas.benchmark.simulation import Comparison, compare, incumbents, usual_searchers
from nas.benchmark.table import Table, Target, find_table
from nas.errors import ConfigError, NASError, UnknownNameError
from tabulated import toy_table

TOY = Target("val", "test")


def test_the_incumbent_is_the_best_that_was_seen() -> None:
    seen = [3.0, 5.0, 5.0, 1.0, 9.0]
    found = incumbents([[3, 0, 2, 1, 0], [4, 1, 2, 3, 0], [1, 2, 1, 4, 4]], seen)
    assert found.tolist() == [[3, 0, 2, 2, 2], [4, 4, 4, 4, 4], [1, 1, 1, 4, 4]]


def test_what_is_seen_steers_and_what_is_judged_counts() -> None:
    """The best validation accuracy, 80, has the second best test accuracy: 77, a regret of 1."""
    found = compare("toy", toy_table(), TOY, {"random": "random"}, seeds=20, evaluations=60)
    result, regret, optimal = found.curves["random"]
    assert found.best == 78
    assert result.mean[-1] == 77
    assert (regret.mean[-1], regret.low[-1], regret.high[-1], optimal[-1]) == (1, 1, 1, 0)
    assert result.mean[0] == pytest.approx(np.mean(toy_table().column("test")), abs=5)
    assert np.allclose(result.mean + regret.mean, 78)
    assert regret.low[0] < regret.mean[0] < regret.high[0]
    same = compare("toy", toy_table(), Target("test", "test"), {"random": "random"}, seeds=20, evaluations=60)
    assert (same.curves["random"].regret.mean[-1], same.curves["random"].optimal[-1]) == (0, 1)


def test_a_comparison_is_repeatable_and_tells_its_progress() -> None:
    told: list[tuple[int, str]] = []

    def run() -> Comparison:
        searchers = {"a": "random", "b": {"name": "evolution", "population": 3, "sample": 2}}
        return compare(
            "toy", toy_table(), TOY, searchers, seeds=3, evaluations=9, update=lambda *each: told.append(each)
        )

    for name, curve in run().curves.items():
        assert np.array_equal(curve.result.mean, run().curves[name].result.mean)
    assert told[:6] == [(1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "b"), (6, "b")]


def test_the_usual_searchers_need_no_supernet() -> None:
    usual = set(usual_searchers())
    assert {"random", "evolution"} <= usual
    assert not usual & {"optuna", "one_shot_evolution", "weight_sharing_random"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluations": 0}, "evaluations must be at least 1, got 0"),
        ({"seeds": -1}, "seeds must be at least 1, got -1"),
        ({"searchers": {}}, "searchers must be at least 1, got 0"),
        ({"searchers": {"r": "randon"}}, "unknown searcher 'randon' (did you mean 'random'?)"),
        ({"searchers": {"e": {"name": "evolution", "population": 0}}}, "population must be at least 1, got 0"),
        ({"target": Target("val", "tset")}, "unknown column 'tset' (did you mean 'test'?)"),
    ],
)
def test_mistakes_are_one_line(changes: dict[str, Any], message: str) -> None:
    given = {"target": TOY, "searchers": {"random": "random"}, "seeds": 2, "evaluations": 2, **changes}
    with pytest.raises(NASError) as error:
        compare("toy", toy_table(), **given)
    assert message in str(error.value)
    assert isinstance(error.value, ConfigError | UnknownNameError)


@pytest.fixture(scope="module")
def bench_201() -> Table:
    return find_table("nas-bench-201")


def test_random_search_equals_the_published_one(bench_201: Table) -> None:
    """93.70 at 12,000 simulated seconds, about 90 evaluations (Dong and Yang, ICLR 2020, table 5)."""
    found = compare("nas-bench-201", bench_201, bench_201.targets["c10"], {"random": "random"}, evaluations=90)
    assert found.seeds == 500
    result = found.curves["random"].result
    assert result.mean[-1] == pytest.approx(93.70, abs=0.10)
    assert result.deviation[-1] == pytest.approx(0.36, abs=0.06)


def test_evolution_is_better_than_random_search_and_fast(bench_201: Table) -> None:
    """500 seeds of 200 evaluations in 30 CPU seconds, from those of 50 seeds."""
    began = time.process_time()
    found = compare(
        "nas-bench-201", bench_201, bench_201.targets["c10"], {"evolution": "evolution", "random": "random"}, seeds=50
    )
    spent = time.process_time() - began
    assert found.curves["evolution"].regret.high[-1] < found.curves["random"].regret.low[-1]
    assert 10 * spent / 2 < 30
