"""A small optical flow network, trained together with the deraining network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import ConfigError
from tmics_space.blocks import conv, zeroed
from tmics_space.flow.provider import Described
from tmics_space.flow.warping import warp

REACH = 2
"""The search range of each level, in pixels of this level."""


class PyramidFlow(nn.Module):
    """A flow from coarse to fine: each level, half the size of the next one, corrects the flow.

    A level warps the neighbour's features by the flow, compares them with the reference's within two pixels, and
    predicts a correction. All levels share one set of weights. The flow of the finest level is upsampled bilinearly.
    Corrections start at zero, so the initial flow is exactly zero. The default width gives 20 thousand parameters.

    Args:
        width: number of features.
        levels: number of levels, at least 1.
        finest: pixels of the frame, along each side, in one pixel of the finest level; a power of 2, at least 2. 4
            takes about a quarter of the time of 2, and reaches as far with one level fewer.

    Raises:
        ConfigError: `levels` is below 1, or `finest` is not such a power of 2.

    Shape:
        Reference and neighbour `(batch, 3, height, width)` in [0, 1] to `(batch, 2, height, width)` in pixels.

    References:
        Sun et al., "PWC-Net", CVPR 2018; Hur and Roth, "IRR-PWC", CVPR 2019 (shared weights).
    """

    def __init__(self, width: int = 16, levels: int = 4, finest: int = 2) -> None:
        super().__init__()
        if levels < 1:
            raise ConfigError(f"'levels' of flow 'pyramid' must be at least 1, got {levels}")
        if finest < 2 or finest & (finest - 1):
            raise ConfigError(f"'finest' of flow 'pyramid' must be a power of 2, at least 2, got {finest}")
        self.levels = levels
        self.finest = finest
        self.features = nn.Sequential(*_layer(3, width), *_layer(width, width))
        self.estimate = nn.Sequential(
            *_layer((2 * REACH + 1) ** 2 + width + 2, 2 * width),
            *_layer(2 * width, width),
            zeroed(conv(width, 2, bias=True)),
        )

    def forward(self, reference: Tensor, neighbour: Tensor) -> Tensor:
        return self.between(self.describe(reference), self.describe(neighbour), reference.shape[2:])

    def describe(self, frames: Tensor) -> Described:
        """Compute the features of every frame at each level, the finest first.

        Args:
            frames: `(batch, 3, height, width)` in [0, 1].
        """
        height, width = frames.shape[2:]
        whole = self.finest * 2 ** (self.levels - 1)
        level = F.pad(frames, (0, -width % whole, 0, -height % whole), mode="replicate")
        pooled = [self.finest, *[2] * (self.levels - 1)]
        pyramid = [level := F.avg_pool2d(level, size) for size in pooled]
        return [_standardized(self.features(level), (2, 3)) for level in pyramid]

    def between(self, reference: Described, neighbour: Described, size: Sequence[int]) -> Tensor:
        """Compute the flow between frames from their features.

        Args:
            reference: result of `describe` for the reference frames.
            neighbour: result of `describe` for their neighbours.
            size: (height, width) of the frames.
        """
        flow = reference[-1].new_zeros(reference[-1].shape[0], 2, *reference[-1].shape[2:])
        for level in reversed(range(self.levels)):
            corrected = self._corrected(reference[level], neighbour[level], flow)
            factor = 2 if level else self.finest
            flow = factor * F.interpolate(corrected, scale_factor=factor, mode="bilinear", align_corners=False)
        return flow[:, :, : size[0], : size[1]]

    def _corrected(self, reference: Tensor, neighbour: Tensor, flow: Tensor) -> Tensor:
        """Correct `flow`, in pixels of this level, by the features of both frames."""
        costs = _standardized(matching_costs(reference, warp(neighbour, flow)), (1,))
        correction: Tensor = self.estimate(torch.cat((costs, reference, flow), 1))
        return flow + correction


def matching_costs(a: Tensor, b: Tensor, reach: int = REACH) -> Tensor:
    """Compare features `a` with features `b` shifted by up to `reach` pixels; the border of `b` is repeated.

    Returns:
        `(batch, (2 reach + 1)², height, width)`. Channel (2 reach + 1) (v + reach) + (u + reach) is the mean over
        features of (a(x, y) - b(x + u, y + v))².
    """
    height, width = a.shape[2:]
    if not torch.is_grad_enabled():  # half the time in channels-last layout
        a, b = a.contiguous(), b.contiguous()
    b = F.pad(b, (reach,) * 4, mode="replicate")
    shifts = [(v, u) for v in range(2 * reach + 1) for u in range(2 * reach + 1)]
    differences = [(a - b[:, :, v : v + height, u : u + width]).square().mean(1) for v, u in shifts]
    return torch.stack(differences, 1)


def _standardized(x: Tensor, dim: tuple[int, ...]) -> Tensor:
    """Scale to mean 0 and about unit variance over `dim`, so that brightness and contrast hardly affect a match."""
    centred = x - x.mean(dim, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(dim, keepdim=True) + 1e-4)


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return conv(inputs, outputs, bias=True), nn.LeakyReLU(0.1)
