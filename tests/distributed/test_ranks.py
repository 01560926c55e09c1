"""Two ranks on their shares of a batch equal one rank on the whole batch, whatever the relaxation and the method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from nas.distributed.ranks import any_rank, count, each, gathered, is_first, joined, of_first, traffic
from nas.distributed.reduction import spread, summed
from nas.distributed.share import Share
from nas.registry import kind
from quadratic import METHODS
from ranked import Compared, everything, on_ranks

CURVED = {"damping": {"relative": 0.1}, "curvature": "gauss_newton"}
ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "closed": {"ridge": 0.1},
    "conjugate_gradient": CURVED,
    "gauss_newton": {"batches": "repeat", "reuse": True},
    "implicit": CURVED,
    "truncated": {"steps": 2},
}
RELAXATIONS = list(kind("relaxation").names())
MATRIX = {
    f"{relaxation} {method}": {
        "method": {"name": method, **ARGUMENTS.get(method, {})},
        "relaxation": relaxation,
        "steps": 1,
    }
    for method in METHODS
    for relaxation in RELAXATIONS
}
SGD = {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9}}
WHOLE = {"space": "noisy", "synchronized": True, "lower": SGD}
"""A network in which batch norm and dropout look across samples."""
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "one path": {"upper": None, "relaxation": "uniform_path"},
    "every path": {"upper": None, "relaxation": {"name": "uniform_path", "fair": True}},
    "micro-batches": {"method": "unrolled", "lower": {"accumulate": 2, "inner_steps": 2}, "upper": {"accumulate": 2}},
    "logarithm of the loss": {"method": "unrolled", "lower": {"scale_free": True}, "upper": {"scale_free": True}},
    "perturbed along the gradient": {"wrappers": [{"name": "perturbation", "attack": "adversarial"}]},
    "perturbed at random": {"wrappers": ["perturbation"]},
    "frozen operations": {"lower": {"freezing": {"name": "oles", "window": 1, "threshold": 0.9}}, "steps": 3},
    "implicit by the Hessian": {"method": {"name": "implicit", "damping": 100.0}},
    "recomputed steps": {"method": {"name": "unrolled", "steps": 2, "memory": "recompute"}},
    "batch norm": WHOLE,
    "batch norm, plain evaluation": {**WHOLE, "evaluation": "plain"},
    "batch norm, second derivatives": {**WHOLE, "method": "unrolled"},
    "batch norm, recomputed": {**WHOLE, "memory": "checkpoint", "method": "unrolled"},
    "dropout of skip connections": {**WHOLE, "wrappers": [{"name": "skip_dropout", "rate": 0.4}]},
}
LOCAL = {"local batch norm": {"space": "noisy", "lower": SGD}}

NEEDS_NO_LOGITS = "uniform_path"
"""The relaxation whose logits no loss moves: it has no upper level (see OPTIONS)."""
OTHER_PATHS = "binary_gates"
"""The relaxation whose steps compute other candidates at each level, so that no level responds."""


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    return on_ranks(everything, {**MATRIX, **OPTIONS, **LOCAL})


def test_two_ranks_equal_one(found: list[dict[str, Any]]) -> None:
    for results in found:
        compared: dict[str, Compared] = results["compared"]
        for name in (*MATRIX, *OPTIONS):
            case = compared[name]
            assert (name, case.equal, case.same_genotype) == (name, True, True)
            assert case.error < 1e-10, name


def test_only_compositions_that_one_rank_refuses_too_are_left_out(found: list[dict[str, Any]]) -> None:
    refused = {name for name, case in found[0]["compared"].items() if case.refused}
    none = {f"{NEEDS_NO_LOGITS} {method}" for method in METHODS}
    other = {f"{OTHER_PATHS} {method}" for method in METHODS if method != "first_order"}
    assert refused - {"gumbel closed"} == none | other  # a path may avoid the few parameters of 'closed'


def test_batch_norm_of_its_own_samples_differs_from_one_rank_but_not_between_ranks(found: list[dict[str, Any]]) -> None:
    case = found[0]["compared"]["local batch norm"]
    assert case.error > 1e-3
    assert case.equal


def test_an_average_of_finished_hypergradients_is_something_else(found: list[dict[str, Any]]) -> None:
    expected, reduced, averaged = map(torch.DoubleTensor, found[0]["averaged"]["gauss_newton"])
    assert torch.allclose(reduced, expected, rtol=1e-12)
    assert (averaged - expected).norm() > 1e-2 * expected.norm()
    expected, reduced, averaged = map(torch.DoubleTensor, found[0]["averaged"]["first_order"])
    assert torch.allclose(reduced, expected, rtol=1e-12)
    assert torch.allclose(averaged, expected, rtol=1e-12)  # it is linear in the gradients of ranks


def test_what_ranks_tell_one_another(found: list[dict[str, Any]]) -> None:
    for results in found:
        told = results["told"]
        assert told["first"] == {"rank": 0, "numbers": [0, 1, 2]}
        assert told["error"] == "only rank 0 says so"
        assert told["each"] == [("a", 0, 1), ("b", 1, 1), ("c", 0, 1), ("d", 1, 1), ("e", 0, 1)]
        assert told["any"] == (True, False)
        assert "there: rank 1" in told["differ"]
        assert "each of the 2 ranks, got 1" in told["few"]
        assert told["shares"] == [Share(0, 2, 5), Share(2, 5, 5)]


def test_a_sample_that_is_not_finite_stops_all_ranks_with_one_diagnosis(found: list[dict[str, Any]]) -> None:
    (message, skipped), other = found[0]["diverging"], found[1]["diverging"]
    assert (message, skipped) == other
    assert skipped == 2
    assert "first in its batch" in message


def test_one_sum_for_each_gradient_of_a_level(found: list[dict[str, Any]]) -> None:
    traffic_of = found[0]["traffic"]
    loss, logits, weights = (8 * numbers for numbers in (1, 2 * 3, 2 * (12 + 12) + 12))
    assert traffic_of["first_order"] == (2, loss + logits)
    # Of each loss its value and its gradient by logits and by weights. For `unrolled` the last is a second derivative.
    assert traffic_of["gauss_newton"] == traffic_of["unrolled"] == (6, 2 * (loss + logits + weights))


def test_one_process_sends_nothing() -> None:
    before = traffic.calls
    tensors = {"a": torch.ones(2, requires_grad=True)}
    with joined():
        assert (count(), is_first()) == (1, True)
        assert spread(tensors)["a"] is tensors["a"]
        assert summed(tensors["a"])[0] is tensors["a"]
        assert gathered(3) == [3]
        assert of_first(lambda: 4) == 4
        assert each(str, [1, 2]) == ["1", "2"]
        assert any_rank(True, False) == (True, False)
        assert Share.own(1).mean(tensors["a"]) is tensors["a"]
    assert traffic.calls == before
