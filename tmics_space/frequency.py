"""The frequency cell: features split by guided filters (He et al., TPAMI 35(6), 2013), and merged."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from nas.errors import ConfigError
from tmics_space.blocks import Attention, ChannelGate, conv, depthwise_enhancement

EPSILONS = (1e-3, 1e-4)
"""Both regularisations are used at every radius."""


def box_filter(image: Tensor, radius: int) -> Tensor:
    """The mean over the part of the window of (2 radius + 1)² pixels that lies in the image `(..., height, width)`."""
    height, width = image.shape[-2:]
    # Two banded matrices: on CPUs several times faster than pooling, and more exact than cumulative sums.
    return _window(height, radius, image) @ (image @ _window(width, radius, image).mT)


def guided_filter(guide: Tensor, source: Tensor, radius: int, eps: float) -> Tensor:
    """`source` `(batch, channels, height, width)` smoothed within the edges of `guide` `(batch, 1, height, width)`.

    mean(A) guide + mean(b) with A = cov(guide, source) / (var(guide) + eps) and b = mean(source) - A mean(guide), the
    means as `box_filter` takes them (eqs. 5, 6 and 8 of the paper). Raises `ConfigError` unless height and width exceed
    2 radius + 1.
    """
    return guided_filters(guide, source, radius, (eps,))[0]


def guided_filters(guide: Tensor, source: Tensor, radius: int, epsilons: Sequence[float]) -> list[Tensor]:
    """`guided_filter` for several `epsilons`, which share the statistics of the window."""
    height, width = source.shape[-2:]
    if min(height, width) <= 2 * radius + 1:
        raise ConfigError(
            f"a guided filter of radius {radius} needs frames of more than {2 * radius + 1} pixels a side,"
            f" found {height} x {width}"
        )
    device = source.device.type
    # The variance is a small difference of large numbers: never in half precision. The meta device has no autocast.
    with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
        single = torch.promote_types(source.dtype, torch.float32)
        guide, wide = guide.to(single), source.to(single)
        mean_guide, mean_source = box_filter(guide, radius), box_filter(wide, radius)
        variance = box_filter(guide * guide, radius) - mean_guide * mean_guide
        covariance = box_filter(guide * wide, radius) - mean_guide * mean_source
        smooth = []
        for eps in epsilons:
            slope = covariance / (variance + eps)
            offset = mean_source - slope * mean_guide
            smooth.append((box_filter(slope, radius) * guide + box_filter(offset, radius)).to(source.dtype))
        return smooth


class FrequencyDecomposition(nn.Module):
    """p = conv(x) split into low frequencies and p less them, by guided filters of all `radii`; merged, plus p.

    The guide is the range of p over its channels. forward: `(batch, channels, height, width)` to the same shape. Raises
    `ConfigError` unless height and width exceed 2 r + 1 for every radius r.
    """

    def __init__(self, channels: int, radii: Sequence[int] = (4, 6)) -> None:
        super().__init__()
        self.radii = tuple(radii)
        bands = len(self.radii) * len(EPSILONS)
        self.project = conv(channels, channels, bias=True)
        self.low = _band(bands * channels, channels)
        self.high = _band(bands * channels, channels)
        self.merge = nn.Sequential(conv(2 * channels, channels, 1), depthwise_enhancement(channels))

    def forward(self, x: Tensor) -> Tensor:
        p: Tensor = self.project(x)
        low = decompose(p, self.radii)
        high = p.repeat(1, low.shape[1] // p.shape[1], 1, 1) - low
        change: Tensor = self.merge(torch.cat((self.low(low), self.high(high)), 1))
        return p + change


def decompose(p: Tensor, radii: Sequence[int]) -> Tensor:
    """The low frequencies of `p` `(batch, channels, height, width)` at each radius and epsilon, stacked in channels."""
    guide = p.amax(1, keepdim=True) - p.amin(1, keepdim=True)
    return torch.cat([low for radius in radii for low in guided_filters(guide, p, radius, EPSILONS)], 1)


def _band(inputs: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        conv(inputs, channels, 1),
        depthwise_enhancement(channels),
        Attention(channels, ChannelGate()),
        depthwise_enhancement(channels),
    )


def _window(length: int, radius: int, like: Tensor) -> Tensor:
    """Row i holds the weights of the mean over the pixels within `radius` of i."""
    position = torch.arange(length, device=like.device)
    inside = ((position.unsqueeze(1) - position).abs() <= radius).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)
