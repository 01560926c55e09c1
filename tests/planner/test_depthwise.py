"""The depthwise convolution, against torch's own and finite differences, for derivatives of both orders and modes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import nas.planner.depthwise as depthwise_module
from nas.planner.depthwise import depthwise

GEOMETRIES = [
    ((3, 3), (1, 1), (1, 1)),
    ((5, 3), (2, 1), (1, 1)),
    ((3, 3), (2, 2), (2, 2)),
    ((3, 5), (0, 4), (1, 2)),
    ((1, 2), (0, 1), (1, 1)),
]


def random(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, dtype=torch.double, generator=generator).requires_grad_()


@pytest.mark.parametrize(("kernel", "padding", "dilation"), GEOMETRIES)
def test_value_and_gradients_are_those_of_torch(
    kernel: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> None:
    x, weight = random(2, 3, 6, 7), random(3, 1, *kernel)
    expected = torch.conv2d(x, weight, None, 1, padding, dilation, 3)
    found = depthwise(x, weight, padding, dilation)
    assert torch.equal(found, expected)
    along = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(found, (x, weight), along), torch.autograd.grad(expected, (x, weight), along), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("kernel", "padding", "dilation"), GEOMETRIES)
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own, for `jvp`
def test_derivatives(kernel: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]) -> None:
    def convolve(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return depthwise(x, weight, padding, dilation)

    inputs = (random(1, 2, 5, 4), random(2, 1, *kernel))
    assert gradcheck(convolve, inputs, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(convolve, inputs, check_fwd_over_rev=True, check_rev_over_rev=True)
    x, weight = inputs
    assert gradgradcheck(lambda x: convolve(x, weight.detach()), (x,), check_fwd_over_rev=True)
    assert gradgradcheck(lambda w: convolve(x.detach(), w), (weight,), check_fwd_over_rev=True)


def test_no_gradient_of_the_kernel_is_computed_where_none_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[Any] = []
    real = depthwise_module._correlation
    monkeypatch.setattr(depthwise_module, "_correlation", lambda *given: computed.append(1) or real(*given))
    x, weight = torch.randn(1, 2, 6, 6, requires_grad=True), torch.randn(2, 1, 5, 5, requires_grad=True)
    out = depthwise(x, weight, (2, 2), (1, 1)).sum()
    torch.autograd.grad(out, x, retain_graph=True)
    assert not computed
    torch.autograd.grad(out, weight)
    assert computed == [1]
