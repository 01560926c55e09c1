"""The blocks of TMICS. All map features `(batch, channels, height, width)` and keep height and width."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from nas.errors import ConfigError, UnknownNameError
from nas.kernels.activation import SLOPE, PReLU
from nas.kernels.depthwise import DepthwiseConv2d

C = TypeVar("C", bound=nn.Conv2d)
L = TypeVar("L", bound=nn.Module)

NORMALIZATIONS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "group": lambda channels: nn.GroupNorm(1, channels, affine=False),
    "batch": lambda channels: nn.BatchNorm2d(channels, affine=False),
}


def normalization(name: str, channels: int) -> nn.Module:
    """Make a norm without parameters, which brings mixed features to one scale.

    Args:
        name: `none`, `group` or `batch`.
        channels: of the features.

    Raises:
        UnknownNameError: no norm has this name.
    """
    if name not in NORMALIZATIONS:
        raise UnknownNameError("normalization", name, NORMALIZATIONS)
    return NORMALIZATIONS[name](channels)


def padding(kernel: int, dilation: int = 1) -> int:
    """Return the padding on each side that keeps the size, in pixels.

    Raises:
        ConfigError: the kernel is not odd and positive.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise ConfigError(f"a kernel must be an odd positive number of pixels wide, got {kernel}")
    return dilation * (kernel // 2)


def conv(
    inputs: int, outputs: int, kernel: int = 3, *, dilation: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """Make a convolution that keeps height and width.

    Raises:
        ConfigError: the kernel is not odd and positive.
    """
    zeros = padding(kernel, dilation)
    if 1 < groups == inputs == outputs and not bias:
        return DepthwiseConv2d(inputs, kernel, dilation)
    return nn.Conv2d(inputs, outputs, kernel, padding=zeros, dilation=dilation, groups=groups, bias=bias)


def he(layer: C) -> C:
    """Give a convolution He initialization for PReLUs at their initial slope, and return it.

    Without norms, torch's default initialization shrinks the variance of features from layer to layer.

    References:
        He et al., "Delving Deep into Rectifiers", ICCV 2015, eq. 15.
    """
    nn.init.kaiming_uniform_(layer.weight, a=SLOPE, nonlinearity="leaky_relu")
    return layer


def zeroed(layer: L) -> L:
    """Set all parameters of a layer to zero and return the layer; its branch starts at zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Residual(nn.Module):
    """x + body(x); the body is the sequence of `layers`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.body(x)
        return x + change


def depthwise_residual(channels: int, kernel: int = 3, dilation: int = 1) -> Residual:
    """Make the light residual block ("Residualblocks" in the authors' code): (k² + 11) C + C² + 1 parameters."""
    return Residual(
        conv(channels, channels, kernel, dilation=dilation, groups=channels),
        conv(channels, channels, dilation=2, groups=channels),
        *_mixed_channels(channels),
    )


def depthwise_enhancement(channels: int) -> Residual:
    """Make a light residual block with a wide receptive field: C² + 45 C + 1 parameters."""
    return Residual(
        conv(channels, channels, 5, dilation=2, groups=channels),
        conv(channels, channels, dilation=2, groups=channels),
        conv(channels, channels, dilation=2, groups=channels),
        *_mixed_channels(channels),
    )


def _mixed_channels(channels: int) -> tuple[nn.Module, ...]:
    return conv(channels, channels, 1), nn.BatchNorm2d(channels), PReLU()


class Attention(nn.Module):
    """PReLU(gate(z) z + y) with y = conv 3x3(x) and z = conv kxk(PReLU(y)).

    The skip connection starts after the first convolution. There are 9 C² + k² C² + 1 parameters and those of the gate.

    Args:
        channels: C.
        gate: maps features to factors in [0, 1].
        kernel: k.
    """

    def __init__(self, channels: int, gate: nn.Module, kernel: int = 3) -> None:
        super().__init__()
        self.first = he(conv(channels, channels))
        self.second = he(conv(channels, channels, kernel))
        self.gate = gate
        self.activation = PReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z = self.second(self.activation(y))
        attended: Tensor = self.activation(torch.addcmul(y, z, self.gate(z)))
        return attended


class SpatialGate(nn.Module):
    """Computes one factor per pixel from the maximum and the mean over channels. 2 k² parameters.

    Shape:
        `(batch, channels, height, width)` to `(batch, 1, height, width)` in [0, 1].
    """

    def __init__(self, kernel: int = 3) -> None:
        super().__init__()
        self.conv = conv(2, 1, kernel)

    def forward(self, x: Tensor) -> Tensor:
        extremes = torch.stack((x.amax(1), x.sum(1) / x.shape[1]), 1)  # `sum` has a cheaper gradient than `mean`
        return torch.sigmoid(self.conv(extremes))


class ChannelGate(nn.Module):
    """Computes one factor per channel from the means of k neighbouring channels. k parameters.

    Shape:
        `(batch, channels, height, width)` to `(batch, channels, 1, 1)` in [0, 1].

    References:
        Wang et al., "ECA-Net", CVPR 2020, eq. 5.
    """

    def __init__(self, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, kernel, padding=padding(kernel), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3)).unsqueeze(1)
        return torch.sigmoid(self.conv(means)).transpose(1, 2).unsqueeze(3)


def two_convs(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Make a convolution 3x3, a PReLU and a convolution 3x3, with biases."""
    return nn.Sequential(conv(inputs, hidden, bias=True), PReLU(), conv(hidden, outputs, bias=True))


def head(channels: int, scale: int = 1) -> nn.Sequential:
    """Make the last layers of DNA or CNA, which map features to an unbounded image.

    The image is `scale` times as high and wide as the features: each of their pixels holds a square of the image.

    The last convolution starts with a tenth of its usual weights and no bias, so the restored frame starts near the
    rainy one. A large initial change makes training reduce it first, and training can stay at no change.
    """
    convs = two_convs(channels, max(1, channels // 2), 3 * scale**2)
    with torch.no_grad():
        for parameter, factor in zip(convs[-1].parameters(), (0.1, 0.0), strict=True):  # weight and bias
            parameter.mul_(factor)
    return convs if scale == 1 else convs.append(nn.PixelShuffle(scale))
