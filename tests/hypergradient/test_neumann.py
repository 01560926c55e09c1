"""The Neumann series against closed forms, its rate of convergence, and unrolled gradient descent."""

from __future__ import annotations

import pytest
import torch
from quadratic import Quadratic, descent

from nas.hypergradient import response

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
def test_converges_at_the_rate_of_the_slowest_direction(seed: int, condition: float) -> None:
    toy = Quadratic(seed, condition)
    step = 1 / toy.eigenvalues.max().item()
    slowest = 1 - step * toy.eigenvalues.min().item()
    first = round(14 / -torch.tensor(slowest).log().item())  # where the error of the slowest is e^-14
    counts = (first, first + 20)
    errors = [
        (toy.hypergradient(response("neumann", terms=n, step_size=step)) - toy.exact(toy.w)).norm() for n in counts
    ]
    assert (errors[1] / errors[0]).item() == pytest.approx(slowest**20, rel=2e-2)


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
