"""Implicit differentiation against closed forms: quadratic two-level problems with random Hessians, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nas.errors import ConfigError
from nas.hypergradient import Parameters, response


def no_step(current: Parameters, gradients: Parameters) -> Parameters:
    raise AssertionError("the implicit response takes no step")


class Quadratic:
    """f(a, w) = w'Hw / 2 - w'Ba with w* = H^-1 B a, F(a, w) = |w - c|^2 / 2 + d'a; w is split over two tensors."""

    def __init__(self, seed: int, condition: float = 50.0, size: int = 6, arch: int = 3) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.size = size
        rotation, _ = torch.linalg.qr(self.normal(generator, size, size))
        self.eigenvalues = torch.logspace(0, torch.tensor(condition).log10().item(), size, dtype=torch.float64) / 10
        self.h = rotation @ self.eigenvalues.diag() @ rotation.T
        self.b = self.normal(generator, size, arch)
        self.c = self.normal(generator, size)
        self.d = self.normal(generator, arch)
        self.a = self.normal(generator, arch).requires_grad_()
        self.w = self.normal(generator, size)

    @staticmethod
    def normal(generator: torch.Generator, *shape: int) -> Tensor:
        drawn: Tensor = torch.randn(shape, generator=generator, dtype=torch.float64)
        return drawn

    def optimum(self) -> Tensor:
        optimum: Tensor = torch.linalg.solve(self.h, self.b @ self.a).detach()
        return optimum

    def named(self, w: Tensor) -> Parameters:
        return {"first": w[:4].view(2, 2), "second": w[4:]}

    @staticmethod
    def joined(current: Parameters) -> Tensor:
        return torch.cat([value.flatten() for value in current.values()])

    def lower(self, current: Parameters) -> Tensor:
        w = self.joined(current)
        loss: Tensor = w @ self.h @ w / 2 - w @ self.b @ self.a
        return loss

    def upper(self, current: Parameters) -> Tensor:
        loss: Tensor = (self.joined(current) - self.c).square().sum() / 2 + self.d @ self.a
        return loss


@pytest.mark.parametrize("damping", [0.0, 1e-2, 0.5, 1.0, 7.0])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_closed_form_at_any_damping(seed: int, damping: float) -> None:
    toy = Quadratic(seed)
    answer = response("implicit", damping=damping)(toy.lower, toy.named(toy.w), no_step)
    assert torch.equal(toy.joined(answer), toy.w)  # the response has a derivative, but moves nothing
    (found,) = torch.autograd.grad(toy.upper(answer), toy.a)
    damped = toy.h + damping * torch.eye(toy.size, dtype=torch.float64)
    expected = toy.d + toy.b.T @ torch.linalg.solve(damped, toy.w - toy.c)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_at_the_optimum_equals_the_difference_of_the_solved_problem() -> None:
    toy = Quadratic(0)

    def solved(a: Tensor) -> Tensor:
        w = torch.linalg.solve(toy.h, toy.b @ a)
        loss: Tensor = (w - toy.c).square().sum() / 2 + toy.d @ a
        return loss

    answer = response("implicit", damping=0.0)(toy.lower, toy.named(toy.optimum()), no_step)
    (found,) = torch.autograd.grad(toy.upper(answer), toy.a)
    for i, unit in enumerate(torch.eye(3, dtype=torch.float64)):
        difference = solved(toy.a.detach() + 1e-5 * unit) - solved(toy.a.detach() - 1e-5 * unit)
        assert found[i].item() == pytest.approx(difference.item() / 2e-5, rel=1e-7)


def test_takes_the_hessian_where_it_depends_on_the_point() -> None:
    # f = w^4 / 4 - a w: w* = a^(1/3), dw*/da = 1 / (3 w^2).
    a = torch.tensor(8.0, dtype=torch.float64, requires_grad=True)
    w = {"w": torch.tensor([2.0], dtype=torch.float64)}
    answer = response("implicit", damping=0.0)(lambda p: (p["w"] ** 4 / 4 - a * p["w"]).sum(), w, no_step)
    (found,) = torch.autograd.grad(answer["w"].sum(), a)
    assert found.item() == pytest.approx(1 / 12)


def test_parameters_that_the_loss_does_not_use_do_not_respond() -> None:
    a = torch.tensor(8.0, dtype=torch.float64, requires_grad=True)
    w = {name: torch.tensor([2.0], dtype=torch.float64) for name in ("used", "unused")}
    answer = response("implicit", damping=0.1)(lambda p: (p["used"] - a).square().sum() / 2, w, no_step)
    found = torch.autograd.grad(answer["used"].sum(), a, retain_graph=True)
    assert found[0].item() == pytest.approx(1 / 1.1)
    assert torch.autograd.grad(answer["unused"].sum(), a)[0].item() == 0


@pytest.mark.parametrize("slope", [0.0, 1.0], ids=["independent", "linear"])
def test_a_flat_loss_needs_damping(slope: float) -> None:
    a = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    w = {"w": torch.ones(2, dtype=torch.float64)}
    with pytest.raises(ConfigError, match="Hessian is singular; set a damping above 0"):
        response("implicit", damping=0.0)(lambda p: a * p["w"].sum() * slope, w, no_step)
    answer = response("implicit", damping=0.5)(lambda p: a * p["w"].sum() * slope, w, no_step)
    (found,) = torch.autograd.grad(answer["w"].sum(), a)
    assert found.item() == pytest.approx(-2 * slope / 0.5)


def test_refuses_levels_whose_hessian_would_be_large() -> None:
    with pytest.raises(ConfigError, match="at most 3 parameters, found 4"):
        response("implicit", limit=3)(lambda p: p["w"].sum(), {"w": torch.ones(2, 2)}, no_step)
