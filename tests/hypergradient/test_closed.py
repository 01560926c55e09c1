"""The optimum of a quadratic level against its closed forms, in float64, wherever the level stands."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nas.errors import ConfigError
from nas.hypergradient.response import Loss, Parameters
from quadratic import Quadratic, response


def no_step(current: Parameters, gradients: Parameters) -> Parameters:
    raise AssertionError("the closed response takes no step")


@pytest.mark.parametrize(("ridge", "center"), [(0.0, 0.0), (0.1, 0.0), (0.5, 2.0), (7.0, -1.0)])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_closed_form_from_any_point(seed: int, ridge: float, center: float) -> None:
    toy = Quadratic(seed)
    damped = toy.h + ridge * torch.eye(toy.size, dtype=torch.float64)
    optimum = torch.linalg.solve(damped, toy.b @ toy.a + ridge * center).detach()
    for w in (toy.w, 10 * toy.w, optimum):
        before = w.clone()
        answer = response("closed", ridge=ridge, center=center)(toy.loss, toy.named(w), toy.others, no_step)
        torch.testing.assert_close(toy.joined(answer).detach(), optimum, rtol=1e-10, atol=1e-12)
        (found,) = torch.autograd.grad(toy.upper(answer), toy.a)
        torch.testing.assert_close(found, toy.exact(optimum, ridge), rtol=1e-10, atol=1e-12)
        assert torch.equal(w, before)


def test_takes_the_derivative_of_a_hessian_that_the_levels_above_change() -> None:
    # f = a w^2 / 2 - w: w* = 1 / a, dw*/da = -1 / a^2.
    a = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    loss = Loss([lambda own, others: (others["a"] * own["w"].square() / 2 - own["w"]).sum()])
    answer = response("closed")(loss, {"w": torch.tensor([3.0], dtype=torch.float64)}, {"a": a}, no_step)
    assert answer["w"].item() == pytest.approx(1 / 4)
    assert torch.autograd.grad(answer["w"].sum(), a)[0].item() == pytest.approx(-1 / 16)


def power(exponent: int) -> Loss:
    return Loss([lambda own, others: (own["w"] ** exponent / exponent - others["a"] * own["w"]).sum()])


def concave(own: Parameters, others: Parameters) -> Tensor:
    return -(own["w"] - others["a"]).square().sum()


def flat(own: Parameters, others: Parameters) -> Tensor:
    return others["a"] * own["w"].sum()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (power(4), "not quadratic in its parameters: a Newton step of .* leaves .* 'implicit'"),
        (Loss([concave]), "does not curve upwards .* ridge above 0"),
        (Loss([flat]), "does not curve upwards in every direction"),
    ],
)
def test_refuses_levels_without_a_closed_form(loss: Loss, message: str) -> None:
    a = torch.tensor(8.0, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ConfigError, match=message):
        response("closed")(loss, {"w": torch.tensor([3.0], dtype=torch.float64)}, {"a": a}, no_step)


def test_a_ridge_answers_where_the_loss_is_flat() -> None:
    a = torch.tensor(8.0, dtype=torch.float64, requires_grad=True)
    own = {"w": torch.ones(2, dtype=torch.float64)}
    answer = response("closed", ridge=2.0, center=0.5)(Loss([flat]), own, {"a": a}, no_step)
    torch.testing.assert_close(answer["w"], torch.full((2,), 0.5 - 8 / 2, dtype=torch.float64), check_dtype=False)
    assert torch.autograd.grad(answer["w"].sum(), a)[0].item() == pytest.approx(-2 / 2)


def test_a_loss_that_is_not_finite_is_left_to_the_engine_to_skip() -> None:
    a = torch.tensor(float("nan"), dtype=torch.float64, requires_grad=True)
    loss = Loss([lambda own, others: (others["a"] * own["w"].square()).sum()])
    answer = response("closed")(loss, {"w": torch.ones(2, dtype=torch.float64)}, {"a": a}, no_step)
    assert answer["w"].isnan().all()


def test_refuses_levels_whose_hessian_would_be_large() -> None:
    with pytest.raises(ConfigError, match=r"'closed': .* 3 parameters, got 4"):
        response("closed", limit=3)(Loss([lambda own, _: own["w"].sum()]), {"w": torch.ones(2, 2)}, {}, no_step)
