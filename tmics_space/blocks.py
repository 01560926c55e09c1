"""The blocks of TMICS. All map features `(batch, channels, height, width)`, and keep the height and width."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from nas.errors import ConfigError, UnknownNameError
from tmics_space.activation import SLOPE, PReLU
from tmics_space.depthwise import DepthwiseConv2d

C = TypeVar("C", bound=nn.Conv2d)
L = TypeVar("L", bound=nn.Module)

NORMALIZATIONS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "group": lambda channels: nn.GroupNorm(1, channels, affine=False),
    "batch": lambda channels: nn.BatchNorm2d(channels, affine=False),
}


def normalization(name: str, channels: int) -> nn.Module:
    """The norm `name` without parameters, which brings what is mixed to one scale; raises `UnknownNameError`."""
    if name not in NORMALIZATIONS:
        raise UnknownNameError("normalization", name, NORMALIZATIONS)
    return NORMALIZATIONS[name](channels)


def padding(kernel: int, dilation: int = 1) -> int:
    """The zeros on each side that keep the size. Raises `ConfigError` for a kernel that has no centre."""
    if kernel < 1 or kernel % 2 == 0:
        raise ConfigError(f"a kernel is an odd positive number of pixels wide, found {kernel}")
    return dilation * (kernel // 2)


def conv(
    inputs: int, outputs: int, kernel: int = 3, *, dilation: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """A convolution that keeps the height and width."""
    zeros = padding(kernel, dilation)
    if 1 < groups == inputs == outputs and not bias:
        return DepthwiseConv2d(inputs, kernel, dilation)
    if kernel == 1:
        dilation = 2  # which changes nothing, but on one thread torch takes the slower of its two ways if it is 1
    return nn.Conv2d(inputs, outputs, kernel, padding=zeros, dilation=dilation, groups=groups, bias=bias)


def he(layer: C) -> C:
    """`layer` with weights whose output is as large as its input, on average, where PReLUs lie between.

    Where no norm follows, torch's own would make it smaller from layer to layer. Source: He et al., "Delving Deep into
    Rectifiers", ICCV 2015, eq. 15, for the slope with which a PReLU begins.
    """
    nn.init.kaiming_uniform_(layer.weight, a=SLOPE, nonlinearity="leaky_relu")
    return layer


def zeroed(layer: L) -> L:
    """`layer` with weights and biases of zero, so that what it adds is nothing at first."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Residual(nn.Module):
    """x + body(x), the body being `layers` in a row."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.body(x)
        return x + change


def depthwise_residual(channels: int, kernel: int = 3, dilation: int = 1) -> Residual:
    """The light residual block ("Residualblocks" of the authors' network file): (k² + 11) C + C² + 1 parameters."""
    return Residual(
        conv(channels, channels, kernel, dilation=dilation, groups=channels),
        conv(channels, channels, dilation=2, groups=channels),
        *_mixed_channels(channels),
    )


def depthwise_enhancement(channels: int) -> Residual:
    """A light residual block with a wide field of view: C² + 45 C + 1 parameters."""
    return Residual(
        conv(channels, channels, 5, dilation=2, groups=channels),
        conv(channels, channels, dilation=2, groups=channels),
        conv(channels, channels, dilation=2, groups=channels),
        *_mixed_channels(channels),
    )


def _mixed_channels(channels: int) -> tuple[nn.Module, ...]:
    return conv(channels, channels, 1), nn.BatchNorm2d(channels), PReLU()


class Attention(nn.Module):
    """y = conv 3x3(x), z = conv kxk(PReLU(y)), PReLU(gate(z) z + y): the skip starts behind the first convolution.

    `gate` maps features to factors in [0, 1] that multiply them. 9 C² + k² C² + 1 parameters and the gate's.
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
    """One factor a pixel, from the largest and the mean channel: (batch, 1, height, width). 2 k² parameters."""

    def __init__(self, kernel: int = 3) -> None:
        super().__init__()
        self.conv = conv(2, 1, kernel)

    def forward(self, x: Tensor) -> Tensor:
        extremes = torch.stack((x.amax(1), x.sum(1) / x.shape[1]), 1)  # the gradient of a sum costs nothing
        return torch.sigmoid(self.conv(extremes))


class ChannelGate(nn.Module):
    """One factor a channel, from the means of its k neighbours in channel order: (batch, channels, 1, 1). k parameters.

    Efficient channel attention: Wang et al., "ECA-Net", CVPR 2020, eq. 5.
    """

    def __init__(self, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, kernel, padding=padding(kernel), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3)).unsqueeze(1)
        return torch.sigmoid(self.conv(means)).transpose(1, 2).unsqueeze(3)


def two_convs(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Convolution 3x3, PReLU, convolution 3x3, with biases."""
    return nn.Sequential(conv(inputs, hidden, bias=True), PReLU(), conv(hidden, outputs, bias=True))


def head(channels: int) -> nn.Sequential:
    """Ends each of the two networks: from features to an image `(batch, 3, height, width)`, not yet bounded.

    It starts small, so that a network starts near the frame it restores: from a large change it first learns to change
    nothing, and may stay there.
    """
    convs = two_convs(channels, max(1, channels // 2), 3)
    with torch.no_grad():
        for parameter, scale in zip(convs[-1].parameters(), (0.1, 0.0), strict=True):  # weight and bias
            parameter.mul_(scale)
    return convs
