"""Relative damping and Gauss-Newton curvature against closed forms of quadratic and of curved losses, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.errors import ConfigError
from nas.hypergradient.damping import damping_of
from nas.hypergradient.generalized_gauss_newton import GeneralizedGaussNewton
from nas.hypergradient.response import Loss, Parameters
from quadratic import descent, response

generator = torch.Generator().manual_seed(0)
MAP = torch.randn(7, 5, generator=generator, dtype=torch.float64)
LINK = torch.randn(7, 2, generator=generator, dtype=torch.float64)
W = torch.randn(5, generator=generator, dtype=torch.float64)
OWN = {"first": W[:4].view(2, 2), "second": W[4:]}
COTANGENT = torch.randn(5, generator=generator, dtype=torch.float64)


def joined(own: Parameters) -> Tensor:
    return torch.cat([value.flatten() for value in own.values()])


def made(outputs: Callable[[Tensor], Tensor], curve: Callable[[Tensor], Tensor]) -> Loss:
    """The loss `curve(outputs(w) - LINK a)`, as a mean of two parts of which one is zero."""

    def traced(own: Parameters, others: Parameters) -> tuple[Tensor, list[Tensor]]:
        z = outputs(joined(own))
        return 2 * curve(z - LINK @ others["a"]), [z, torch.ones(3)]

    def nothing(own: Parameters, others: Parameters) -> tuple[Tensor, list[Tensor]]:
        z = outputs(joined(own))
        return 0 * z.sum(), [z]

    return Loss([lambda o, a: traced(o, a)[0], lambda o, a: nothing(o, a)[0]], traces=[traced, nothing])


def linear(w: Tensor) -> Tensor:
    return MAP @ w


def curved(w: Tensor) -> Tensor:
    return (MAP @ w).tanh() - 2 * (MAP @ w)


def square(z: Tensor) -> Tensor:
    return z.square().sum() / 2


def charbonnier(z: Tensor) -> Tensor:
    return (z.square() + 0.01).sqrt().sum()


def dense(outputs: Callable[[Tensor], Tensor], curve: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
    jacobian = torch.autograd.functional.jacobian(outputs, W)
    return jacobian.T @ torch.autograd.functional.hessian(curve, outputs(W) - LINK @ a) @ jacobian


A = torch.tensor([0.3, -0.8], dtype=torch.float64)


@pytest.mark.parametrize("curve", [square, charbonnier])
@pytest.mark.parametrize("outputs", [linear, curved])
def test_the_matrix_and_its_largest_eigenvalue(outputs: Any, curve: Any) -> None:
    loss, expected = made(outputs, curve), dense(outputs, curve, A)
    product = GeneralizedGaussNewton(loss, OWN, {"a": A})([COTANGENT[:4].view(2, 2), COTANGENT[4:]])
    torch.testing.assert_close(torch.cat([each.flatten() for each in product]), expected @ COTANGENT)
    largest = torch.linalg.eigvalsh(expected)[-1].item()
    assert damping_of({"relative": 0.3}, loss, OWN, {"a": A}) == pytest.approx(0.3 * largest, rel=1e-9)
    assert damping_of(0.3, loss, OWN, {"a": A}) == 0.3


@pytest.mark.parametrize("method", ["implicit", "conjugate_gradient"])
@pytest.mark.parametrize("curvature", ["hessian", "gauss_newton"])
def test_the_damped_response(method: str, curvature: str) -> None:
    a = A.clone().requires_grad_()
    loss, matrix = made(curved, charbonnier), dense(curved, charbonnier, A)
    damping = 0.5 * torch.linalg.eigvalsh(matrix)[-1]
    if curvature == "hessian":
        matrix = torch.autograd.functional.hessian(lambda w: charbonnier(curved(w) - LINK @ A), W)

    def slope(b: Tensor) -> Tensor:
        w = W.clone().requires_grad_()
        return torch.autograd.grad(charbonnier(curved(w) - LINK @ b), w, create_graph=True)[0]

    mixed = torch.autograd.functional.jacobian(slope, A)
    expected = -COTANGENT @ torch.linalg.inv(matrix + damping * torch.eye(5, dtype=torch.float64)) @ mixed
    more = {"iterations": 5} if method == "conjugate_gradient" else {}
    answer = response(method, damping={"relative": 0.5}, curvature=curvature, **more)(loss, OWN, {"a": a}, descent(0.1))
    (found,) = torch.autograd.grad(joined(answer) @ COTANGENT, a)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def test_an_indefinite_hessian_needs_a_damping_that_covers_its_least_eigenvalue() -> None:
    # f = (w_1^2 - 3 w_2^2) / 2 - a (w_1 + w_2) has the eigenvalues 1 and -3.
    def lower(own: Parameters, others: Parameters) -> Tensor:
        w = own["w"]
        return (w[0] ** 2 - 3 * w[1] ** 2) / 2 - others["a"] * w.sum()

    own = {"w": torch.ones(2, dtype=torch.float64)}
    a = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    for damping in (0.0, 2.9, 3.0):
        with pytest.raises(ConfigError, match=rf"'implicit'.*above 3.*least eigenvalue.*-3, got {damping:g}\."):
            response("implicit", damping=damping)(Loss([lower]), own, {"a": a}, descent(0.1))
    answer = response("implicit", damping=5.0)(Loss([lower]), own, {"a": a}, descent(0.1))
    (found,) = torch.autograd.grad(answer["w"].sum(), a)
    assert found.item() == pytest.approx(1 / 6 + 1 / 2)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (made(linear, lambda z: z.abs().sum()), "convex.* got curvature 0"),
        (made(linear, lambda z: -square(z)), "convex.* got curvature -"),
        (Loss([lambda own, others: joined(own).square().sum()]), "does not know"),
        (Loss([], traces=[lambda own, others: (joined(own).square().sum(), [])]), "does not call the network"),
    ],
)
def test_relative_damping_needs_curvature_in_the_outputs(loss: Loss, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        damping_of({"relative": 0.1}, loss, OWN, {"a": A})
