"""The Neumann series against closed forms, its rate of convergence, and unrolled gradient descent."""

from __future__ import annotations

import pytest
import torch

from quadratic import Quadratic, descent, response

STEP = 0.3  # times the largest eigenvalue, 5: 1.5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("terms", [1, 2, 7])
def test_equals_the_closed_form_of_the_series(seed: int, terms: int) -> None:
    toy = Quadratic(seed)
    shrink = torch.eye(toy.size, dtype=torch.float64) - STEP * toy.h
    series = STEP * sum((torch.linalg.matrix_power(shrink, j) for j in range(terms)), torch.zeros_like(toy.h))
    expected = toy.d + toy.b.T @ series @ (toy.w - toy.c)
    found = toy.hypergradient(response("neumann", terms=terms, step_size=STEP))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("condition", [5.0, 50.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_error_falls_by_one_less_the_eigenvalues(seed: int, condition: float) -> None:
    toy = Quadratic(seed, condition)
    step = 1.5 / toy.eigenvalues.max().item()
    errors = []
    for terms in (1, 5, 20, 60):
        error = toy.hypergradient(response("neumann", terms=terms, step_size=step)) - toy.exact(toy.w)
        torch.testing.assert_close(error, toy.error(toy.w, terms, step), rtol=1e-6, atol=1e-12)
        errors.append(error.norm().item())
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("steps", [1, 4])
def test_equals_unrolled_descent_at_the_optimum(steps: int) -> None:
    toy = Quadratic(1)
    series = toy.hypergradient(response("neumann", terms=steps, step_size=STEP), toy.optimum())
    unrolled = toy.hypergradient(response("unrolled", steps=steps), toy.optimum(), descent(STEP))
    torch.testing.assert_close(series, unrolled, rtol=1e-10, atol=1e-12)


def test_the_level_does_not_move() -> None:
    toy = Quadratic(0)
    answer = response("neumann")(toy.loss, toy.named(toy.w), toy.others, descent(0.1))
    assert torch.equal(toy.joined(answer), toy.w)
