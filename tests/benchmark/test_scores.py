"""Scores of untrained networks against a table."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

import nas
from nas.benchmark.batches import Noise, TaskBatch
from nas.benchmark.rankings import correlate
from nas.benchmark.scores import correlate_scores, sampled, usual_scores
from nas.benchmark.table import find_table
from nas.cost.network_cost import measure
from nas.registry import kind
from nas.searchers.score import zero_cost
from tabulated import toy_table

NOISE = Noise((4, 2, 6, 6))
TABLE = toy_table()


def test_the_parameters_of_nas_bench_201_rank_its_cells() -> None:
    table = find_table("nas-bench-201")
    (found,) = correlate_scores(table, "c10_test_e200", {"params": "params"}, Noise((16, *table.input)))
    assert found.correlation.networks == 15_625
    assert found.correlation.spearman == pytest.approx(0.7527, abs=0.005)
    assert found.correlation.kendall == pytest.approx(0.5778, abs=0.005)


def test_sizes_are_those_of_the_networks_and_of_all_of_them() -> None:
    known: dict[tuple[str, int], float] = {}
    found = correlate_scores(TABLE, "test", {"params": "params", "flops": "flops"}, NOISE, sample=2, known=known)
    assert [each.batch for each in found] == [None, None]
    for row in range(len(TABLE)):
        assert known["params", row] == measure(TABLE.genotype(row))
        assert known["flops", row] == measure(TABLE.genotype(row), "flops", (torch.zeros(1, 2, 6, 6),))


def test_other_scores_are_those_of_a_fixed_sample() -> None:
    def run(known: dict[tuple[str, int], float]) -> None:
        results = correlate_scores(TABLE, "test", {"synflow": "synflow"}, NOISE, sample=3, known=known)
        assert results[0].rows.tolist() == sorted(row for _, row in known)

    first: dict[tuple[str, int], float] = {}
    second: dict[tuple[str, int], float] = {}
    run(first)
    run(second)
    assert first == second
    assert len(first) == 3
    assert set(sampled(TABLE, 3)) < set(sampled(TABLE, 4))
    for (_, row), value in first.items():
        assert value == zero_cost("synflow", TABLE.genotype(row), (torch.zeros(1, 2, 6, 6),))


def test_known_scores_are_not_computed_again() -> None:
    begun, computed = [], list[str]()
    known = {("synflow", row): float(row) for row in range(len(TABLE))}
    (found,) = correlate_scores(
        TABLE,
        "test",
        {"synflow": "synflow"},
        NOISE,
        known=known,
        begin=lambda *counts: begun.append(counts),
        update=lambda _, score: computed.append(score),
    )
    assert begun == [(6, 6)]
    assert computed == []
    assert known == {("synflow", row): float(row) for row in range(len(TABLE))}
    assert found.correlation == correlate(range(len(TABLE)), TABLE.column("test"))
    assert found.correlation.spearman < 1


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("received", ["genotype", "network"])
def test_a_score_that_is_not_finite(monkeypatch: pytest.MonkeyPatch, value: float, received: str) -> None:
    scores: dict[str, Callable[..., float]] = {
        "genotype": lambda genotype: value,
        "network": lambda network: value,
    }
    monkeypatch.setattr(kind("score"), "_registered", dict(kind("score")._registered))
    nas.register("score", "odd")(scores[received])
    with pytest.raises(nas.NASError, match=r"score 'odd' must be a finite number, got -?(nan|inf) for") as error:
        correlate_scores(TABLE, "test", {"odd": "odd"}, NOISE)
    assert "\n" not in str(error.value)


def test_a_score_that_needs_a_training_is_refused() -> None:
    assert not {"retraining", "one_shot"} & set(usual_scores())
    assert {"params", "flops", "grad_norm", "synflow", "naswot", "jacob_cov"} <= set(usual_scores())
    with pytest.raises(nas.NASError, match="score 'retraining' needs 'retrained', got nothing"):
        correlate_scores(TABLE, "test", {"retraining": "retraining"}, NOISE)


def test_a_loss_on_noise_needs_class_scores() -> None:
    with pytest.raises(nas.NASError, match=r"needs class scores .batch, classes., got .4, 8, 6, 6"):
        correlate_scores(TABLE, "test", {"grad_norm": "grad_norm"}, NOISE)


def test_a_batch_of_a_task() -> None:
    table = find_table("nas-bench-201")
    changes = {"task.data": {"kind": "digits"}, "task.batch": 8, "options.in_channels": 1, "options.cells": 1}
    batch = TaskBatch(nas.load_config("nas-bench-201", changes), "digits", table)
    scores = {"naswot": "naswot", "synflow": "synflow"}
    found = correlate_scores(table, "c10_test_e200", scores, batch, sample=2)
    assert [(each.batch, len(each.rows)) for each in found] == [("digits", 2), (None, 2)]
    with pytest.raises(nas.NASError, match="must be of space 'toy-pair', got 'nas-bench-201'"):
        TaskBatch(nas.load_config("nas-bench-201", changes), "digits", TABLE)
