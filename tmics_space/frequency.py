"""The frequency cell: guided filters (He et al., TPAMI 35(6), 2013) split features into bands, which are merged."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import ConfigError
from tmics_space.blocks import Attention, ChannelGate, conv, depthwise_enhancement

EPSILONS = (1e-3, 1e-4)
"""The regularisations; each radius uses both."""
TOGETHER = 32
"""Number of channels that the CPU filters together: they stay in its cache between passes."""


class BoxFilter:
    """The mean over the pixels of each window of (2 radius + 1)² pixels that lie within the image.

    Args:
        radius: in pixels.
        like: an image with the height, width, type and device of all images; their pixel counts are computed once.

    Shape:
        `(batch, channels, height, width)`, unchanged.
    """

    def __init__(self, radius: int, like: Tensor) -> None:
        self.radius = radius
        rows, columns = (_inside(length, radius, like) for length in like.shape[-2:])
        self.share = 1 / (rows.unsqueeze(1) * columns)

    def __call__(self, image: Tensor) -> Tensor:
        if image.device.type == "cpu":
            return self._sum(image).mul_(self.share)
        return self._pooled(image)  # a convolution could round to TF32

    def _sum(self, image: Tensor) -> Tensor:
        channels, size = image.shape[1], 2 * self.radius + 1
        along = image.new_ones(channels, 1, 1, size)
        summed = F.conv2d(image, along, padding=(0, self.radius), groups=channels)
        return F.conv2d(summed, along.mT, padding=(self.radius, 0), groups=channels)

    def _pooled(self, image: Tensor) -> Tensor:
        size, radius = 2 * self.radius + 1, self.radius
        rows = F.avg_pool2d(image, (1, size), 1, (0, radius), count_include_pad=False)
        return F.avg_pool2d(rows, (size, 1), 1, (radius, 0), count_include_pad=False)


def guided_filter(guide: Tensor, source: Tensor, radius: int, eps: float) -> Tensor:
    """Smooth `source` within the edges of `guide`.

    Returns mean(A) guide + mean(b) with A = cov(guide, source) / (var(guide) + eps) and b = mean(source) - A
    mean(guide). The means are those of `BoxFilter`.

    Args:
        guide: `(batch, 1, height, width)`.
        source: `(batch, channels, height, width)`.
        radius: in pixels.
        eps: regularisation of the variance.

    Returns:
        The smoothed image, of the shape of `source`.

    Raises:
        ConfigError: height or width is not above 2 radius + 1.

    References:
        He, Sun and Tang, "Guided Image Filtering", TPAMI 35(6), 2013, eqs. 5, 6 and 8.
    """
    return guided_filters(guide, source, radius, (eps,))[0]


def guided_filters(guide: Tensor, source: Tensor, radius: int, epsilons: Sequence[float]) -> list[Tensor]:
    """Apply `guided_filter` with each of several `epsilons`; they share the statistics of the windows.

    Returns:
        One smoothed image for each epsilon.

    Raises:
        ConfigError: height or width is not above 2 radius + 1.
    """
    height, width = source.shape[-2:]
    if min(height, width) <= 2 * radius + 1:
        raise ConfigError(
            f"frames for a guided filter of radius {radius} must have more than {2 * radius + 1} pixels a side,"
            f" got {height} x {width}"
        )
    device = source.device.type
    # The variance is a small difference of large numbers and needs single precision. The meta device has no autocast.
    with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
        single = torch.promote_types(source.dtype, torch.float32)
        guide, wide = guide.to(single), source.to(single)
        mean = BoxFilter(radius, wide)
        mean_guide, mean_source = mean(guide), mean(wide)
        variance = mean(guide * guide) - mean_guide * mean_guide
        covariance = torch.addcmul(mean(guide * wide), mean_guide, mean_source, value=-1)
        smooth = []
        for eps in epsilons:
            slope = covariance / (variance + eps)
            offset = torch.addcmul(mean_source, slope, mean_guide, value=-1)
            smooth.append(torch.addcmul(mean(offset), mean(slope), guide).to(source.dtype))
        return smooth


class FrequencyDecomposition(nn.Module):
    """Splits p = conv(x) into low bands and p minus each low band, merges all bands, and adds p.

    Guided filters of all `radii` make the low bands. Their guide is the maximum minus the minimum of p over channels.

    Args:
        channels: of the features.
        radii: of the filters, in pixels.

    Raises:
        ConfigError: in a forward pass, height or width is not above 2 r + 1 for some radius r.

    Shape:
        `(batch, channels, height, width)`, unchanged.
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
        low, high = self._mixed(p, decompose(p, self.radii))
        change: Tensor = self.merge(torch.cat((self.low[1:](low), self.high[1:](high)), 1))
        return p + change

    def _mixed(self, p: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the first layer of `low` to the low bands, and that of `high` to p minus each low band.

        Convolutions are linear. So both layers take the low bands, p enters once, and no high band is computed.
        """
        layers: Any = (self.low[0], self.high[0])
        weight = layers[1].weight
        both = F.conv2d(low, torch.cat((layers[0].weight, -weight)))
        mixed, rest = both.chunk(2, 1)
        return mixed, rest + F.conv2d(p, weight.unflatten(1, (-1, p.shape[1])).sum(1))


def decompose(p: Tensor, radii: Sequence[int]) -> Tensor:
    """Compute the low bands at each radius and epsilon.

    Args:
        p: features, `(batch, channels, height, width)`.
        radii: of the guided filters, in pixels.

    Returns:
        The bands, stacked in channels: `(batch, len(radii) * len(EPSILONS) * channels, height, width)`.
    """
    guide = (p.amax(1) - p.amin(1)).unsqueeze(1)  # not `keepdim`: one channel in channels-last layout is slow
    parts = [_as_laid(part, p) for part in torch.split(p, TOGETHER, 1)] if p.device.type == "cpu" else [p]
    bands = [[low for radius in radii for low in guided_filters(guide, part, radius, EPSILONS)] for part in parts]
    return torch.cat([low for band in zip(*bands, strict=True) for low in band], 1)


def _as_laid(part: Tensor, whole: Tensor) -> Tensor:
    """Make some channels of an image contiguous in the image's layout."""
    last = whole.is_contiguous(memory_format=torch.channels_last)
    return part.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _band(inputs: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        conv(inputs, channels, 1),
        depthwise_enhancement(channels),
        Attention(channels, ChannelGate()),
        depthwise_enhancement(channels),
    )


def _inside(length: int, radius: int, like: Tensor) -> Tensor:
    """Count for each of `length` positions those within `radius`."""
    position = torch.arange(length, device=like.device, dtype=like.dtype)
    return (position + radius).clamp(max=length - 1) - (position - radius).clamp(min=0) + 1
