from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, jvp

from nas.kernels.activation import PReLU


def gradients(module: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """The output, and the gradients of a weighted sum of it: by the input, and by the slope."""
    x = x.detach().requires_grad_()
    out = module(x)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return out, *torch.autograd.grad((weights * out).sum(), [x, *module.parameters()])


def pair(slope: float, dtype: torch.dtype = torch.float64) -> tuple[PReLU, nn.PReLU]:
    """Ours and torch's, of equal slope."""
    ours, theirs = PReLU().to(dtype), nn.PReLU().to(dtype)
    nn.init.constant_(ours.weight, slope)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("slope", [-0.3, 0.0, 0.25, 0.8, 1.5])
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (7,), (1, 1)])
def test_values_and_gradients_are_torchs(slope: float, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64).round(decimals=1)  # some are zero
    x.view(-1)[0] = 0
    ours, theirs = pair(slope)
    for found, expected in zip(gradients(ours, x), gradients(theirs, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # which torch uses in forward mode
def test_derivatives_are_those_of_finite_differences() -> None:
    ours, _ = pair(0.25)
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, weight: Tensor) -> Tensor:
        out: Tensor = functional_call(ours, {"weight": weight}, x)
        return out

    assert gradcheck(function, (x, ours.weight), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(function, (x, ours.weight), check_fwd_over_rev=True)
    value, change = jvp(lambda x: function(x, ours.weight), (x,), (torch.ones_like(x),))
    torch.testing.assert_close(change, torch.where(value > 0, 1.0, 0.25).double())


@pytest.mark.parametrize("frozen", ["slope", "input"])
def test_what_needs_no_gradient_gets_none(frozen: str) -> None:
    ours, _ = pair(0.25)
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=frozen != "input")
    ours.requires_grad_(frozen != "slope")
    ours(x).square().sum().backward()
    assert (x.grad is None) == (frozen == "input")
    assert (ours.weight.grad is None) == (frozen == "slope")


def test_autocast_is_torchs() -> None:
    ours, theirs = pair(0.25, torch.float32)
    x = torch.randn(2, 4, 9).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = gradients(ours, x), gradients(theirs, x)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
