"""Conjugate gradients against the dense solution, at any damping, and where the Hessian is not positive."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nas.errors import ConfigError
from nas.hypergradient.response import Loss
from quadratic import Quadratic, descent, response


@pytest.mark.parametrize("damping", [0.0, 1e-2, 0.5, 1.0, 7.0])
@pytest.mark.parametrize("seed", range(3))
def test_is_exact_after_as_many_iterations_as_eigenvalues(seed: int, damping: float) -> None:
    toy = Quadratic(seed)
    found = toy.hypergradient(response("conjugate_gradient", iterations=toy.size, damping=damping))
    torch.testing.assert_close(found, toy.exact(toy.w, damping), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("condition", [5.0, 50.0])
def test_errors_stay_below_the_bound_of_the_theory(seed: int, condition: float) -> None:
    # In the norm of the Hessian the error falls by 2 ((sqrt c - 1) / (sqrt c + 1))^k (Saad, 2003, eq. 6.128).
    toy = Quadratic(seed, condition, size=30, arch=30)
    toy.b = torch.linalg.matrix_power(torch.eye(30, dtype=torch.float64), 1)  # the gradient shows the whole solution
    rate = (condition**0.5 - 1) / (condition**0.5 + 1)

    def distance(found: Tensor) -> float:
        error = found - toy.exact(toy.w)
        return (error @ toy.h @ error).sqrt().item()

    toy.a = torch.zeros(30, dtype=torch.float64, requires_grad=True)
    toy.d = torch.zeros(30, dtype=torch.float64)
    start = distance(torch.zeros(30, dtype=torch.float64))
    errors = [
        distance(toy.hypergradient(response("conjugate_gradient", iterations=k, damping=0.0))) for k in (1, 3, 6, 12)
    ]
    for k, error in zip((1, 3, 6, 12), errors, strict=True):
        assert error <= 2 * rate**k * start * (1 + 1e-9)
    assert errors == sorted(errors, reverse=True)


def test_more_iterations_than_needed_change_nothing() -> None:
    toy = Quadratic(0)
    found = toy.hypergradient(response("conjugate_gradient", iterations=50, damping=0.0))
    torch.testing.assert_close(found, toy.exact(toy.w), rtol=1e-8, atol=1e-10)


def test_an_upper_loss_that_does_not_see_the_level_asks_for_nothing() -> None:
    toy = Quadratic(0)
    answer = response("conjugate_gradient", damping=0.0)(toy.loss, toy.named(toy.w), toy.others, descent(0.1))
    upper = toy.d @ toy.a + 0 * toy.joined(answer).sum()
    assert torch.equal(torch.autograd.grad(upper, toy.a)[0], toy.d)


@pytest.mark.parametrize(("damping", "expected"), [(0.0, None), (1.0, None), (3.0, 1.0)])
def test_refuses_a_damping_that_does_not_cover_the_least_eigenvalue(damping: float, expected: float | None) -> None:
    # f = -w^2 - a w, so that the damped Hessian is damping - 2, and f_wa = -1.
    a = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    loss = Loss([lambda own, others: -own["w"].square() - others["a"] * own["w"]])
    w = {"w": torch.tensor(0.7, dtype=torch.float64)}
    answer = response("conjugate_gradient", damping=damping)(loss, w, {"a": a}, descent(0.1))
    if expected is None:
        with pytest.raises(ConfigError, match=rf"'conjugate_gradient'.*above 2.*least eigenvalue.*-2, got {damping:g}"):
            torch.autograd.grad(answer["w"], a)
    else:
        assert torch.autograd.grad(answer["w"], a)[0].item() == pytest.approx(expected)
