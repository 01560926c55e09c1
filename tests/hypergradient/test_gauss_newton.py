"""The rank-one formula, evaluated by hand."""

from __future__ import annotations

import pytest
import torch

from nas.errors import ConfigError
from nas.hypergradient.gauss_newton import GaussNewton
from nas.hypergradient.response import Loss
from quadratic import Quadratic, descent, response


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_formula(seed: int) -> None:
    toy = Quadratic(seed)
    f_w = toy.h @ toy.w - toy.b @ toy.a.detach()
    f_a = -toy.b.T @ toy.w
    expected = toy.d - (toy.w - toy.c) @ f_w / (f_w @ f_w) * f_a
    torch.testing.assert_close(toy.hypergradient(response("gauss_newton")), expected, rtol=1e-12, atol=1e-12)


def test_is_the_exact_response_where_the_hessian_has_rank_one() -> None:
    # f = g^2 / 2 with g = u'w - a: f_ww = u u', f_wa = -u; the pseudo-inverse is u u' / |u|^4.
    a = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    u, w = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.9, -1.1]], dtype=torch.float64)
    loss = Loss([lambda own, others: (u @ own["w"] - others["a"]).square() / 2])
    answer = response("gauss_newton")(loss, {"w": w}, {"a": a}, descent(0.1))
    above = torch.tensor([0.7, 0.2, -0.4], dtype=torch.float64)
    found = torch.autograd.grad(above @ answer["w"], a)[0]
    torch.testing.assert_close(found, above @ u / (u @ u))


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-15), (torch.float32, 1e-6)])
def test_at_the_optimum_the_level_does_not_respond(dtype: torch.dtype, rounding: float) -> None:
    """Nor next to it, where the gradient is nothing but rounding errors: the formula has no limit there."""
    a = torch.tensor(0.5, dtype=dtype, requires_grad=True)
    loss = Loss([lambda own, others: (own["w"] - others["a"]).square() / 2])
    for off in (0.0, rounding, -rounding):
        answer = response("gauss_newton")(loss, {"w": a.detach() + off}, {"a": a}, descent(0.1))
        assert torch.autograd.grad(answer["w"], a)[0].item() == 0
    near = response("gauss_newton")(loss, {"w": a.detach() + 0.01}, {"a": a}, descent(0.1))
    assert torch.autograd.grad(near["w"], a)[0].item() == pytest.approx(1, rel=1e-5)


def test_the_gradient_of_a_step_can_be_reused_for_its_own_batch_alone() -> None:
    with pytest.raises(ConfigError, match=r"^hypergradient\.batches must be repeat"):
        response("gauss_newton", reuse=True)
    with pytest.raises(ConfigError, match=r"^hypergradient\.batches must be .*, got 'same'"):
        response("unrolled", batches="same")


@pytest.mark.parametrize("reuse", [False, True])
def test_takes_the_gradient_of_the_last_step_only_if_told(reuse: bool) -> None:
    toy = Quadratic(0)
    f_w, f_a = torch.randn(6, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    loss = Loss([toy.lower], taken={**toy.named(f_w), "a": f_a})
    answer = response("gauss_newton", reuse=reuse, batches="repeat")(loss, toy.named(toy.w), toy.others, descent(0.1))
    found = torch.autograd.grad(toy.upper(answer), toy.a)[0]
    expected = toy.d - (toy.w - toy.c) @ f_w / (f_w @ f_w) * f_a if reuse else toy.hypergradient(GaussNewton())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_computes_what_the_last_step_did_not() -> None:
    toy = Quadratic(1)
    loss = Loss([toy.lower], taken=toy.named(torch.ones(6, dtype=torch.float64)))
    answer = GaussNewton(reuse=True)(loss, toy.named(toy.w), toy.others, descent(0.1))
    found = torch.autograd.grad(toy.upper(answer), toy.a)[0]
    torch.testing.assert_close(found, toy.hypergradient(GaussNewton()), rtol=1e-12, atol=1e-12)
