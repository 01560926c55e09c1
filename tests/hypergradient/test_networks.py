"""Every method on a small network: against central differences of the real inner steps, and against dense algebra."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nas.hypergradient.response import Loss
from nas.hypergradient.virtual_step import differentiable_step
from networks import BUILDS, Build, Case
from quadratic import METHODS, descent, response

NAMES = sorted(set(METHODS) - {"closed"})  # which is for quadratic levels alone

COVERED = {"implicit": {"damping": 3.0}, "conjugate_gradient": {"damping": 3.0}}
"""A damping that covers the negative eigenvalues of the small network."""

every_optimizer = pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)


@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize("warm", [0, 3])
@every_optimizer
def test_steps_equal_central_differences_of_what_the_optimizer_really_does(
    build: Build, warm: int, clip: float | None
) -> None:
    case = Case(build, warm=warm, clip=clip)
    one, three, last_of_three = (case.central_differences(steps, before) for steps, before in ((1, 0), (3, 0), (3, 2)))
    for expected, found, rtol in (
        (one, case.hypergradient("unrolled"), 1e-5),
        (one, case.hypergradient("truncated", steps=1, last=1), 1e-5),
        (one, case.hypergradient("finite_difference", radius=1e-4), 1e-4),
        (three, case.hypergradient("unrolled", steps=3), 1e-5),
        (three, case.hypergradient("truncated", steps=3, last=3), 1e-5),
        (last_of_three, case.hypergradient("truncated", steps=3, last=1), 1e-5),
    ):
        torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-8)
    first_order = case.hypergradient("first_order")
    for other in (one, three, last_of_three):  # else the test would say nothing about the response
        assert not torch.allclose(other, first_order, rtol=1e-2)


@pytest.mark.parametrize("radius", [5e-3, 1e-3])
@every_optimizer
def test_the_error_of_finite_differences_falls_with_the_square_of_the_radius(build: Build, radius: float) -> None:
    case = Case(build, warm=3)
    exact = case.hypergradient("unrolled")
    errors = [(case.hypergradient("finite_difference", radius=r) - exact).norm() for r in (radius, radius / 2)]
    assert (errors[0] / errors[1]).item() == pytest.approx(4, rel=0.02)


@every_optimizer
@pytest.mark.parametrize("warm", [0, 3])
def test_steps_computed_again_have_the_gradient_of_steps_that_are_kept(build: Build, warm: int) -> None:
    case = Case(build, warm=warm)
    kept, again = (case.hypergradient("unrolled", steps=4, memory=memory) for memory in ("keep", "recompute"))
    torch.testing.assert_close(again, kept, rtol=1e-10, atol=1e-13)
    assert not torch.allclose(kept, case.hypergradient("unrolled", steps=3), rtol=1e-3)


def second_derivatives(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """f_ww, f_wa, f_w, f_a, F_w and F_a, dense, by differentiating the losses."""

    def f(w: Tensor, a: Tensor) -> Tensor:
        return case.loss(case.named(w), {"arch": a})

    a = case.arch.detach()
    f_w, f_a = torch.func.grad(f, argnums=(0, 1))(case.flat, a)
    f_ww, f_wa = torch.func.jacrev(torch.func.grad(f), argnums=(0, 1))(case.flat, a)
    leaf = case.flat.clone().requires_grad_()
    upper_w, upper_a = torch.autograd.grad(case.upper(case.named(leaf)), [leaf, case.arch])
    return f_ww, f_wa, f_w, f_a, upper_w, upper_a


def test_implicit_methods_equal_dense_algebra() -> None:
    case = Case(BUILDS["adam"], warm=3)
    f_ww, f_wa, f_w, f_a, upper_w, upper_a = second_derivatives(case)
    unit = torch.eye(len(f_ww), dtype=torch.float64)

    def implicit(inverse: Tensor) -> Tensor:
        return upper_a - upper_w @ inverse @ f_wa

    series = 0.2 * sum((torch.linalg.matrix_power(unit - 0.2 * f_ww, j) for j in range(4)), torch.zeros_like(unit))
    for expected, found in (
        (implicit(torch.linalg.inv(f_ww + 1.5 * unit)), case.hypergradient("implicit", damping=1.5)),
        (
            implicit(torch.linalg.inv(f_ww + 1.5 * unit)),
            case.hypergradient("conjugate_gradient", damping=1.5, iterations=60),
        ),
        (implicit(series), case.hypergradient("neumann", terms=4, step_size=0.2)),
        (upper_a - (upper_w @ f_w) / (f_w @ f_w) * f_a, case.hypergradient("gauss_newton")),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
        assert not torch.allclose(found, upper_a, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_neither_values_nor_the_optimizer_change(name: str) -> None:
    case = Case(BUILDS["adam"], warm=2)
    values = [*case.own.values(), *case.net.state_dict().values(), case.arch]
    moments = [moment for state in case.optimizer.state.values() for moment in state.values()]
    before = [tensor.clone() for tensor in (*values, *moments)]
    case.hypergradient(name, **COVERED.get(name, {}))
    assert all(map(torch.equal, before, (*values, *moments)))


def test_the_distance_of_finite_differences_is_a_share_of_the_norm() -> None:
    # f = a w^4: the difference at w +- h is 4 a (w^3 + w h^2) u, where h is the radius times |w|.
    a = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    loss = Loss([lambda own, others: others["a"] * own["w"] ** 4])
    for w in (0.3, -2.0):
        answer = response("finite_difference", radius=0.1)(
            loss, {"w": torch.tensor(w, dtype=torch.float64)}, {"a": a}, descent(1.0)
        )
        # Seven times the cotangent goes no further.
        assert torch.autograd.grad(7 * answer["w"], a)[0].item() == pytest.approx(-7 * 4 * w**3 * 1.01)
    answer = response("finite_difference")(loss, {"w": torch.zeros((), dtype=torch.float64)}, {"a": a}, descent(1.0))
    assert torch.autograd.grad(answer["w"], a)[0].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_an_upper_loss_that_does_not_see_the_level_has_its_own_gradient_alone(name: str) -> None:
    case = Case(BUILDS["adam"], warm=2)
    step = differentiable_step(case.optimizer, case.owned)
    answer = response(name, **COVERED.get(name, {}))(case.loss, case.own, {"arch": case.arch}, step)
    unseen = sum((0 * value.sum() for value in answer.values()), torch.zeros(()))
    found = torch.autograd.grad(case.arch.sin().sum() + unseen, case.arch)[0]
    torch.testing.assert_close(found, case.arch.cos().detach(), rtol=0, atol=0)
