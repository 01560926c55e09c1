"""Implicit differentiation against closed forms: quadratic two-level problems with random Hessians, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nas.errors import ConfigError
from nas.hypergradient.response import Loss, Parameters
from quadratic import Quadratic, response


def no_step(current: Parameters, gradients: Parameters) -> Parameters:
    raise AssertionError("the implicit response takes no step")


@pytest.mark.parametrize("damping", [0.0, 1e-2, 0.5, 1.0, 7.0])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_closed_form_at_any_damping(seed: int, damping: float) -> None:
    toy = Quadratic(seed)
    answer = response("implicit", damping=damping)(toy.loss, toy.named(toy.w), toy.others, no_step)
    assert torch.equal(toy.joined(answer), toy.w)  # the response has a derivative, but moves nothing
    (found,) = torch.autograd.grad(toy.upper(answer), toy.a)
    torch.testing.assert_close(found, toy.exact(toy.w, damping), rtol=1e-10, atol=1e-12)


def test_at_the_optimum_equals_the_difference_of_the_solved_problem() -> None:
    toy = Quadratic(0)

    def solved(a: Tensor) -> Tensor:
        w = torch.linalg.solve(toy.h, toy.b @ a)
        loss: Tensor = (w - toy.c).square().sum() / 2 + toy.d @ a
        return loss

    answer = response("implicit", damping=0.0)(toy.loss, toy.named(toy.optimum()), toy.others, no_step)
    (found,) = torch.autograd.grad(toy.upper(answer), toy.a)
    for i, unit in enumerate(torch.eye(3, dtype=torch.float64)):
        difference = solved(toy.a.detach() + 1e-5 * unit) - solved(toy.a.detach() - 1e-5 * unit)
        assert found[i].item() == pytest.approx(difference.item() / 2e-5, rel=1e-7)


def test_takes_the_hessian_where_it_depends_on_the_point() -> None:
    # f = w^4 / 4 - a w: w* = a^(1/3), dw*/da = 1 / (3 w^2).
    a = torch.tensor(8.0, dtype=torch.float64, requires_grad=True)
    w = {"w": torch.tensor([2.0], dtype=torch.float64)}
    loss = Loss([lambda own, others: (own["w"] ** 4 / 4 - others["a"] * own["w"]).sum()])
    answer = response("implicit", damping=0.0)(loss, w, {"a": a}, no_step)
    (found,) = torch.autograd.grad(answer["w"].sum(), a)
    assert found.item() == pytest.approx(1 / 12)


def test_parameters_that_the_loss_does_not_use_do_not_respond() -> None:
    a = torch.tensor(8.0, dtype=torch.float64, requires_grad=True)
    w = {name: torch.tensor([2.0], dtype=torch.float64) for name in ("used", "unused")}
    loss = Loss([lambda own, others: (own["used"] - others["a"]).square().sum() / 2])
    answer = response("implicit", damping=0.1)(loss, w, {"a": a}, no_step)
    found = torch.autograd.grad(answer["used"].sum(), a, retain_graph=True)
    assert found[0].item() == pytest.approx(1 / 1.1)
    assert torch.autograd.grad(answer["unused"].sum(), a)[0].item() == 0


@pytest.mark.parametrize("slope", [0.0, 1.0], ids=["independent", "linear"])
def test_a_flat_loss_needs_damping(slope: float) -> None:
    a = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    w = {"w": torch.ones(2, dtype=torch.float64)}
    loss = Loss([lambda own, others: others["a"] * own["w"].sum() * slope])
    with pytest.raises(ConfigError, match=r"'implicit'.*damping must be above 0.*least eigenvalue.* 0, got 0"):
        response("implicit", damping=0.0)(loss, w, {"a": a}, no_step)
    answer = response("implicit", damping=0.5)(loss, w, {"a": a}, no_step)
    (found,) = torch.autograd.grad(answer["w"].sum(), a)
    assert found.item() == pytest.approx(-2 * slope / 0.5)


def test_refuses_levels_whose_hessian_would_be_large() -> None:
    with pytest.raises(ConfigError, match="3 parameters, got 4"):
        response("implicit", limit=3)(Loss([lambda own, _: own["w"].sum()]), {"w": torch.ones(2, 2)}, {}, no_step)
