from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from nas.kernels.depthwise import DepthwiseConv2d

KERNELS = pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (3, 2), (5, 1), (5, 2), (3, 3)])


def pair(kernel: int, dilation: int, dtype: torch.dtype = torch.float64) -> tuple[DepthwiseConv2d, nn.Conv2d]:
    """Ours and torch's, with equal weights."""
    torch.manual_seed(0)
    ours = DepthwiseConv2d(4, kernel, dilation).to(dtype)
    theirs = nn.Conv2d(4, 4, kernel, padding=dilation * (kernel // 2), dilation=dilation, groups=4, bias=False)
    theirs.to(dtype).load_state_dict(ours.state_dict())
    return ours, theirs


def gradients(module: nn.Module, x: Tensor, *, autocast: bool = False) -> tuple[Tensor, ...]:
    """The output, and the gradients of a weighted sum of it: by the input, and by the kernel."""
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = module(x)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return out, *torch.autograd.grad((weights * out).sum(), [x, *module.parameters()])


@KERNELS
@pytest.mark.parametrize("size", [(9, 8), (1, 1), (2, 17)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["channels first", "last"])
def test_values_and_gradients_are_torchs(
    kernel: int, dilation: int, size: tuple[int, int], layout: torch.memory_format
) -> None:
    x = torch.randn(3, 4, *size, dtype=torch.float64).to(memory_format=layout)
    ours, theirs = pair(kernel, dilation)
    ours, theirs = ours.to(memory_format=layout), theirs.to(memory_format=layout)
    for found, expected in zip(gradients(ours, x), gradients(theirs, x), strict=True):
        torch.testing.assert_close(found, expected)
    assert torch.equal(ours(x), theirs(x))
    assert ours(x).stride() == theirs(x).stride()
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("channels", [1, 6, 17, 32, 40])
def test_any_number_of_channels(channels: int) -> None:
    """The gradient of the kernel goes by groups of channels."""
    x = torch.randn(2, channels, 7, 6, dtype=torch.float64)
    ours = DepthwiseConv2d(channels, 3, 2).double()
    theirs = nn.Conv2d(channels, channels, 3, padding=2, dilation=2, groups=channels, bias=False).double()
    theirs.load_state_dict(ours.state_dict())
    for found, expected in zip(gradients(ours, x), gradients(theirs, x), strict=True):
        torch.testing.assert_close(found, expected)


@KERNELS
def test_under_autocast_it_is_torchs_but_keeps_float32_where_a_gradient_is_wanted(kernel: int, dilation: int) -> None:
    ours, theirs = pair(kernel, dilation, torch.float32)
    x = torch.randn(2, 4, 9, 8)
    torch.testing.assert_close(gradients(ours, x, autocast=True), gradients(theirs, x))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert torch.equal(ours(x), theirs(x))
        assert ours(x).dtype == torch.bfloat16


def test_a_gradient_outside_autocast_of_a_pass_inside() -> None:
    ours, _ = pair(3, 2, torch.float32)
    x = torch.randn(2, 4, 9, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = ours(x).float().square().sum()
    loss.backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32


@pytest.mark.parametrize("frozen", ["kernel", "input"])
def test_what_needs_no_gradient_gets_none(frozen: str) -> None:
    ours, theirs = pair(3, 2)
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64, requires_grad=frozen != "input")
    grads = []
    for module in (ours, theirs):
        module.requires_grad_(frozen != "kernel")
        module(x).square().sum().backward()
        grads.append((copy.copy(x.grad), module.weight.grad))
        x.grad = None
    for found, expected in zip(*grads, strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            torch.testing.assert_close(found, expected)


def test_it_has_a_shape_on_the_meta_device() -> None:
    with torch.device("meta"):
        assert DepthwiseConv2d(4, 3, 2)(torch.empty(2, 4, 7, 9)).shape == (2, 4, 7, 9)
