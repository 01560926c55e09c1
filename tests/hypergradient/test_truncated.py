"""Truncation: the value of all steps, the derivative of the last."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import Adam

from nas.hypergradient.response import Loss, Parameters
from nas.hypergradient.virtual_step import differentiable_step
from quadratic import Quadratic, descent, response

RATE = 0.1


@pytest.mark.parametrize(("steps", "last"), [(1, 1), (4, 1), (5, 3), (3, 3)])
def test_equals_the_closed_form_of_sgd_steps(steps: int, last: int) -> None:
    toy = Quadratic(0)
    shrink = torch.eye(toy.size, dtype=torch.float64) - RATE * toy.h
    w = toy.w
    for _ in range(steps):
        w = shrink @ w + RATE * toy.b @ toy.a.detach()
    power = sum((torch.linalg.matrix_power(shrink, i) for i in range(last)), torch.zeros_like(toy.h))
    expected = toy.d + (RATE * power @ toy.b).T @ (w - toy.c)
    found = toy.hypergradient(response("truncated", steps=steps, last=last), step=descent(RATE))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("condition", [5.0, 50.0])
@pytest.mark.parametrize("last", [1, 5, 20])
def test_at_the_optimum_the_error_falls_by_one_less_the_eigenvalues(last: int, condition: float) -> None:
    toy = Quadratic(0, condition)
    rate = 1.5 / toy.eigenvalues.max().item()
    found = toy.hypergradient(response("truncated", steps=20, last=last), toy.optimum(), descent(rate))
    expected = toy.error(toy.optimum(), last, rate)
    torch.testing.assert_close(found - toy.exact(toy.optimum()), expected, rtol=1e-6, atol=1e-10)


def test_starts_the_last_steps_from_the_optimizer_s_state_after_the_first_ones() -> None:
    # Three steps of Adam of which one is differentiated: the same as two real ones, then one unrolled.
    a = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def lower(own: Parameters, others: Parameters) -> torch.Tensor:
        return (own["w"] - others["a"].sin()).square().sum() / 2

    def fresh() -> tuple[nn.Parameter, Adam]:
        w = nn.Parameter(torch.tensor([1.0, -0.5], dtype=torch.float64))
        return w, Adam([w], lr=0.1)

    w, optimizer = fresh()
    step = differentiable_step(optimizer, {"w": w})
    answer = response("truncated", steps=3, last=1)(Loss([lower]), {"w": w.detach()}, {"a": a}, step)
    found = torch.autograd.grad(answer["w"].square().sum(), a)[0]

    w, optimizer = fresh()
    for _ in range(2):
        optimizer.zero_grad()
        torch.autograd.backward(lower({"w": w}, {"a": a.detach()}))
        optimizer.step()
    step = differentiable_step(optimizer, {"w": w})
    answer = response("unrolled")(Loss([lower]), {"w": w.detach()}, {"a": a}, step)
    torch.testing.assert_close(found, torch.autograd.grad(answer["w"].square().sum(), a)[0])
