"""Wide candidates of comparable cost, without norms: the operation set `tmics-compact`.

They suit some 32 to 48 channels at half size (`scale=2` of the space `tmics`). Each is x + body(x), and the last
convolution of a body starts with a tenth of its usual weights, so deep networks need no norm: statistics of the small
batches of small crops that restoration is trained on are noisy.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nas.kernels.activation import PReLU
from nas.space.operations import OperationSet, operation
from tmics_space.blocks import Residual, conv, he


@operation("wide_residual")
def wide_residual(channels: int, *, kernel: int = 3, dilation: int = 1) -> nn.Module:
    """Convolution kxk, PReLU, convolution 3x3; plus x. (k² + 9) C² + 2 C + 1 parameters.

    References:
        Lim et al., "EDSR", CVPR Workshops 2017 (residual blocks without norms).
    """
    return Residual(
        he(conv(channels, channels, kernel, dilation=dilation, bias=True)),
        PReLU(),
        _small(conv(channels, channels, bias=True)),
    )


@operation("wide_pointwise")
def wide_pointwise(channels: int, *, kernel: int = 5, dilation: int = 1) -> nn.Module:
    """Convolution kxk, PReLU, convolution 1x1; plus x. (k² + 1) C² + 2 C + 1 parameters."""
    return Residual(
        he(conv(channels, channels, kernel, dilation=dilation, bias=True)),
        PReLU(),
        _small(conv(channels, channels, 1, bias=True)),
    )


@operation("inverted_residual")
def inverted_residual(channels: int, *, kernel: int = 7, dilation: int = 1, expand: int = 2) -> nn.Module:
    """1x1 to e C channels, PReLU, depthwise kxk, PReLU, 1x1; plus x. 2 e C² + (k² + 1) e C + C + 2 parameters.

    References:
        Sandler et al., "MobileNetV2", CVPR 2018; Ding et al., "RepLKNet", CVPR 2022 (large depthwise kernels).
    """
    hidden = expand * channels
    return Residual(
        he(conv(channels, hidden, 1, bias=True)),
        PReLU(),
        he(conv(hidden, hidden, kernel, dilation=dilation, groups=hidden)),
        PReLU(),
        _small(conv(hidden, channels, 1, bias=True)),
    )


@operation("gated")
def gated(channels: int, *, kernel: int = 3, dilation: int = 1, expand: int = 2) -> nn.Module:
    """1x1 to 2 e C channels, depthwise kxk, product of halves, channel attention, 1x1; plus x.

    There are 3 e C² + 2 e C (k² + 1) + C + e² C² + e C parameters.

    References:
        Chen et al., "NAFNet", ECCV 2022 (SimpleGate, and simplified channel attention, without layer norms).
    """
    hidden = expand * channels
    return Residual(
        conv(channels, 2 * hidden, 1, bias=True),
        conv(2 * hidden, 2 * hidden, kernel, dilation=dilation, groups=2 * hidden),
        SimpleGate(),
        SimpleChannelAttention(hidden),
        _small(conv(hidden, channels, 1, bias=True)),
    )


class SimpleGate(nn.Module):
    """The product of both halves of the channels: `(batch, 2 channels, ...)` to `(batch, channels, ...)`."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        return first * second


class SimpleChannelAttention(nn.Module):
    """x times a linear function of its channel means. C² + C parameters, initially a factor of about 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels, channels, 1, bias=True)
        nn.init.ones_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        factor: Tensor = self.conv(x.mean((2, 3), keepdim=True))
        return x * factor


def _small(layer: nn.Conv2d) -> nn.Conv2d:
    """Start at a tenth of He initialization, without bias."""
    with torch.no_grad():
        he(layer).weight.mul_(0.1)
        if layer.bias is not None:
            layer.bias.zero_()
    return layer


COMPACT = OperationSet(
    {
        "residual_3x3": wide_residual,
        "dilated_3x3": partial(wide_residual, dilation=2),
        "dilated_3x3_4": partial(wide_residual, dilation=4),
        "pointwise_5x5": wide_pointwise,
        "inverted_7x7": inverted_residual,
        "inverted_5x5_2": partial(inverted_residual, kernel=5, dilation=2),
        "gated_3x3": partial(gated, expand=1),
        "gated_5x5": partial(gated, kernel=5, expand=1),
    }
)
"""The candidates of the set `tmics-compact`."""

COMPACT.register("tmics-compact")
