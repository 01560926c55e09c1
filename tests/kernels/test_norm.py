"""The batch norm of the planner, against torch's own and finite differences, for derivatives of three orders."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from nas.kernels.norm import batch_norm

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own


def random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, dtype=torch.double, generator=generator).requires_grad_()


def norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    return batch_norm(x, None, None, weight, bias, 0.1, 1e-2)


def by_torch(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    return F.batch_norm(x, None, None, weight, bias, True, 0.1, 1e-2)


INPUTS = [(random(2, 3, 4, 2),), (random(2, 3, 4, 2), random(3)), (random(2, 3, 4, 2), random(3), random(2, 3)[0])]


@pytest.mark.parametrize("inputs", INPUTS)
def test_the_value_and_its_gradients_are_those_of_torch(inputs: tuple[Tensor, ...]) -> None:
    found, expected = norm(*inputs), by_torch(*inputs)
    assert torch.equal(found, expected)
    along = torch.randn_like(found)
    first = [torch.autograd.grad(y, inputs, along, create_graph=True) for y in (found, expected)]
    second = [torch.autograd.grad(sum((g**3).sum() for g in each), inputs[:2]) for each in first]
    for a, b in (*zip(*first, strict=True), *zip(*second, strict=True)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_the_statistics_move_as_in_torch() -> None:
    found, expected = ([torch.zeros(3).double(), torch.ones(3).double()] for _ in range(2))
    x = random(2, 3, 4, 2)
    batch_norm(x, *found, None, None, 0.3, 1e-2)
    F.batch_norm(x, *expected, None, None, True, 0.3, 1e-2)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def test_one_pixel_has_no_statistics() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(random(1, 3, 1, 1))


@pytest.mark.parametrize("inputs", INPUTS)
def test_derivatives_of_two_orders_in_both_modes(inputs: tuple[Tensor, ...]) -> None:
    batched = {"check_batched_grad": True}
    assert gradcheck(norm, inputs, check_forward_ad=True, check_batched_forward_grad=True, **batched)
    assert gradgradcheck(norm, inputs, check_fwd_over_rev=True, check_rev_over_rev=True, **batched)


@pytest.mark.parametrize("inputs", INPUTS)
def test_derivatives_of_the_third_order(inputs: tuple[Tensor, ...]) -> None:
    def gradients(along: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(norm(*inputs), inputs, along, create_graph=True)

    assert gradgradcheck(gradients, (random(2, 3, 4, 2) + 1, *inputs))


def test_reverse_over_forward_is_exact_where_torch_holds_the_statistics_constant() -> None:
    weight, bias = (t.detach() for t in INPUTS[2][1:])
    along = random(2, 3, 4, 2).detach() + 1

    def slope(x: Tensor) -> Tensor:
        return torch.func.jvp(lambda x, w: norm(x, w, bias), (x, weight), (along * x, bias))[1].square().sum()

    x = random(2, 3, 4, 2)
    assert gradcheck(slope, (x,))
