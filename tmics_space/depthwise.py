"""Depthwise convolution, with a backward pass that is several times faster on the CPU where it is dilated."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

DENSE = 16
"""Channels of a dense kernel: as many numbers as fit into a register of the CPU."""


class DepthwiseConv2d(nn.Conv2d):
    """A convolution of each channel by itself, with an odd kernel, padded with zeros to keep the size; no bias.

    The same parameters and values as `nn.Conv2d(channels, channels, kernel, groups=channels, ...)`. On the CPU the
    gradient of the input is taken as a convolution with the mirrored kernel, and that of the kernel as one
    of dense kernels; where autocast is on and a gradient is wanted, both passes keep the type of the weights.
    """

    def __init__(self, channels: int, kernel: int, dilation: int = 1) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(channels, channels, kernel, padding=padding, dilation=dilation, groups=channels, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(input)
        if torch.is_autocast_enabled("cpu"):  # torch's gradient of the kernel in bfloat16 is not always finite
            with torch.autocast("cpu", enabled=False):
                return self.forward(input.to(self.weight.dtype))
        if self.dilation[0] == 1:
            return super().forward(input)
        out: Tensor = _Depthwise.apply(input, self.weight, self.dilation[0])  # type: ignore[no-untyped-call]  # torch has no types here
        return out


def _convolve(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, None, 1, padding, dilation, x.shape[1])


class _Depthwise(torch.autograd.Function):
    """Its derivatives are made of differentiable operations, so they can be differentiated again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        return _convolve(x, weight, dilation)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        x, weight, ctx.dilation = inputs
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        wanted_x, wanted_weight, _ = ctx.needs_input_grad
        of_x = _convolve(gradient, weight.flip(2, 3), ctx.dilation) if wanted_x else None
        of_weight = _of_kernel(x, gradient, weight.shape[-1], ctx.dilation) if wanted_weight else None
        return of_x, of_weight, None

    @staticmethod
    def jvp(ctx: Any, of_x: Tensor, of_weight: Tensor, _: None) -> Tensor:
        x, weight = ctx.saved_tensors
        return _convolve(of_x, weight, ctx.dilation) + _convolve(x, of_weight, ctx.dilation)


def _of_kernel(x: Tensor, gradient: Tensor, kernel: int, dilation: int) -> Tensor:
    """The gradient of the kernel (channels, 1, kernel, kernel): the diagonal of that of dense kernels.

    Dense kernels over small groups of channels take less time than many passes over the image, one for each tap.
    """
    channels = x.shape[1]
    group = max(size for size in range(1, DENSE + 1) if channels % size == 0)
    shape, padding = (channels, group, kernel, kernel), dilation * (kernel // 2)
    dense: Tensor = conv2d_weight(  # type: ignore[no-untyped-call]  # torch has no types here
        x, shape, gradient, padding=padding, dilation=dilation, groups=channels // group
    )
    own = dense.view(-1, group, group, kernel, kernel).diagonal(0, 1, 2)
    return own.permute(0, 3, 1, 2).reshape(channels, 1, kernel, kernel)
