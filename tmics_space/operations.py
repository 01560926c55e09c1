"""The candidate operations of TMICS. Each has its own residual connection, so no skip and no zero is a candidate."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from nas.kernels.activation import PReLU
from nas.space.operations import OperationSet, operation
from tmics_space.blocks import Attention, ChannelGate, Residual, SpatialGate, conv, he


@operation("residual")
def residual(channels: int, *, kernel: int = 3, dilation: int = 1) -> nn.Module:
    """Convolution kxk, dilated 3x3 and 1x1, batch norm, PReLU; plus x. (k² + 10) C² + 2 C + 1 parameters."""
    return Residual(
        conv(channels, channels, kernel, dilation=dilation),
        conv(channels, channels, dilation=2),
        conv(channels, channels, 1),
        nn.BatchNorm2d(channels),
        PReLU(),
    )


@operation("dense")
def dense(channels: int, *, kernel: int = 3, dilation: int = 1) -> nn.Module:
    """Three convolutions kxk, each on all earlier maps; x plus a third of the last. 6 k² C² + 1 parameters."""
    return Dense(channels, kernel, dilation)


@operation("dilated")
def dilated(channels: int, *, kernel: int = 3, dilation: int = 2) -> nn.Module:
    """ReLU, dilated depthwise kxk, 1x1, batch norm; plus x. C² + (k² + 2) C parameters."""
    return Residual(
        nn.ReLU(),
        conv(channels, channels, kernel, dilation=dilation, groups=channels),
        conv(channels, channels, 1),
        nn.BatchNorm2d(channels),
    )


@operation("spatial_attention")
def spatial_attention(channels: int, *, kernel: int = 3) -> nn.Module:
    """Two convolutions and a factor per pixel. (9 + k²) C² + 2 k² + 1 parameters."""
    return Attention(channels, SpatialGate(kernel), kernel)


@operation("channel_attention")
def channel_attention(channels: int, *, kernel: int = 3) -> nn.Module:
    """Two convolutions and a factor per channel. (9 + k²) C² + k + 1 parameters."""
    return Attention(channels, ChannelGate(kernel), kernel)


class Dense(nn.Module):
    """x + 0.333333 c with a = conv(x), b = conv(x, a), c = conv(x, a, b); one PReLU follows each convolution."""

    def __init__(self, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            he(conv(count * channels, channels, kernel, dilation=dilation)) for count in (1, 2, 3)
        )
        self.activation = PReLU()

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for convolution in self.convs:
            maps.append(self.activation(convolution(torch.cat(maps, 1))))
        return x + 0.333333 * maps[-1]  # the authors' constant


OPERATIONS = OperationSet(
    {
        "residual_3x3": partial(residual, kernel=3),
        "residual_5x5": partial(residual, kernel=5),
        "dense_3x3": partial(dense, kernel=3),
        "dense_5x5": partial(dense, kernel=5),
        "dilated_3x3": partial(dilated, kernel=3),
        "dilated_5x5": partial(dilated, kernel=5),
        "spatial_attention": spatial_attention,
        "channel_attention": channel_attention,
    }
)
"""The eight candidates of each micro decision."""

AUTHORS_NAMES: Mapping[str, str] = {
    "residual_3x3": "Residualblocks_3_1",
    "residual_5x5": "Residualblocks_5_1",
    "dense_3x3": "Denseblocks_3_1",
    "dense_5x5": "Denseblocks_5_1",
    "dilated_3x3": "DilConv_3_2",
    "dilated_5x5": "DilConv_5_2",
    "spatial_attention": "SPAattention_3",
    "channel_attention": "ECAattention_3",
}
"""Maps names of candidates to the authors' names: `<family>_<kernel>_<dilation>`, or `<family>_<kernel>`."""
