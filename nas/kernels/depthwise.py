"""Depthwise convolution layer whose gradients are several times faster on the CPU if PyTorch's are slow."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.kernels.convolution import conv2d


class DepthwiseConv2d(nn.Conv2d):
    """Convolution of each channel with its own odd kernel, padded with zeros to keep the size; without bias.

    Parameters and values equal those of `nn.Conv2d(channels, channels, kernel, groups=channels, ...)`. Under autocast
    on the CPU, both passes keep the dtype of the weights if a gradient is needed.

    Args:
        channels: number of channels, in and out.
        kernel: height and width of the kernel, an odd number.
        dilation: distance between the pixels that a kernel meets.

    Shape:
        input and output: `(batch, channels, height, width)`
    """

    def __init__(self, channels: int, kernel: int, dilation: int = 1) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(channels, channels, kernel, padding=padding, dilation=dilation, groups=channels, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        if not input.is_cpu:
            return super().forward(input)
        if torch.is_grad_enabled() and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):  # torch's gradient of the kernel in bfloat16 may be infinite
                return self.forward(input.to(self.weight.dtype))
        return conv2d(input, self.weight, None, self.stride, self.padding, self.dilation, self.groups)
