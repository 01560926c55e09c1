"""Unrolled responses against closed forms and central differences of the whole inner steps, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from nas.hypergradient.response import Loss, Parameters
from nas.hypergradient.virtual_step import differentiable_step
from quadratic import response

H = torch.tensor([[2.0, 0.3, 0.0], [0.3, 1.0, -0.2], [0.0, -0.2, 0.5]], dtype=torch.float64)
B = torch.tensor([[1.0, -0.5], [0.4, 0.8], [-0.3, 0.6]], dtype=torch.float64)
C = torch.tensor([0.2, -1.0, 0.7], dtype=torch.float64)
D = torch.tensor([0.1, -0.2], dtype=torch.float64)
POINT = torch.tensor([0.7, -0.4], dtype=torch.float64)


def hypergradient(w: Tensor, steps: int, rate: float) -> Tensor:
    """For f = w'Hw / 2 - w'Ba and F = |w - C|^2 / 2 + D'a, through SGD steps from w."""
    a = POINT.clone().requires_grad_()

    def lower(own: Parameters, others: Parameters) -> Tensor:
        return own["w"] @ H @ own["w"] / 2 - own["w"] @ B @ others["a"]

    parameter = nn.Parameter(w.clone())
    step = differentiable_step(SGD([parameter], lr=rate), {"w": parameter})
    answer = response("unrolled", steps=steps)(Loss([lower]), {"w": w}, {"a": a}, step)["w"]
    upper = (answer - C).square().sum() / 2 + D @ a
    return torch.autograd.grad(upper, a)[0]


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_equals_the_closed_form_of_sgd_steps(steps: int) -> None:
    rate = 0.3
    start = torch.tensor([1.0, 0.5, -0.5], dtype=torch.float64)
    shrink = torch.eye(3, dtype=torch.float64) - rate * H
    # w' = shrink w + rate B a, so w_K depends on a through the sum of the powers of `shrink`.
    power = sum((torch.linalg.matrix_power(shrink, i) for i in range(steps)), torch.zeros_like(H))
    last = torch.linalg.matrix_power(shrink, steps) @ start + rate * power @ B @ POINT
    expected = D + (rate * power @ B).T @ (last - C)
    torch.testing.assert_close(hypergradient(start, steps, rate), expected, rtol=1e-12, atol=1e-12)


def test_converges_to_the_implicit_value_at_the_rate_of_the_slowest_direction() -> None:
    rate = 0.3
    optimum = torch.linalg.solve(H, B @ POINT)
    exact = D + B.T @ torch.linalg.solve(H, optimum - C)
    errors = [(hypergradient(optimum, steps, rate) - exact).norm().item() for steps in (60, 80, 100)]
    slowest = 1 - rate * torch.linalg.eigvalsh(H).min().item()
    assert errors[1] / errors[0] == pytest.approx(slowest**20, rel=1e-3)
    assert errors[2] / errors[1] == pytest.approx(slowest**20, rel=1e-3)


def test_stays_finite_where_gradients_are_zero() -> None:
    # A dead ReLU: the lower gradient of its weights is exactly zero, at Adam's first steps.
    a = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    w = {"dead": nn.Parameter(torch.tensor([-1.0, 1.0], dtype=torch.float64))}

    def loss(own: Parameters, others: Parameters) -> Tensor:
        return (own["dead"].relu() * others["a"]).square().sum()

    answer = response("unrolled", steps=4)(
        Loss([loss]), {"dead": w["dead"].detach()}, {"a": a}, differentiable_step(Adam(w.values(), lr=0.1), w, clip=0.5)
    )
    (found,) = torch.autograd.grad(answer["dead"].sum(), a)
    assert found.isfinite()
    assert answer["dead"].isfinite().all()


def test_the_given_values_do_not_change() -> None:
    w = torch.ones(3, dtype=torch.float64)
    hypergradient(w, 2, 0.3)
    assert torch.equal(w, torch.ones(3, dtype=torch.float64))
    assert not w.requires_grad
