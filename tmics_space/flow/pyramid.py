"""A small optical flow network of our own, learned together with what uses it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import ConfigError
from tmics_space.blocks import conv, zeroed
from tmics_space.flow.provider import Described, flow_provider
from tmics_space.flow.warp import warp

REACH = 2
"""How many pixels of its own level each level can correct the flow by."""


@flow_provider("pyramid")
class PyramidFlow(nn.Module):
    """Coarse to fine: each level, half the size of the next, corrects the flow so far by matching features.

    A level warps the neighbour's features by the flow, compares them with the reference's within two pixels, and
    predicts a correction from that (as PWC-Net, Sun et al., CVPR 2018). All levels share one set of weights (as
    IRR-PWC, Hur and Roth, CVPR 2019), which serves any number of `levels`; the finest works at half the frame's size.
    Corrections start at zero, hence the flow does: exactly. 20 thousand parameters at the default width.

    forward: frames `(batch, 3, height, width)` in [0, 1] of any size to a flow `(batch, 2, height, width)` in pixels.
    Raises `ConfigError` without a level.
    """

    def __init__(self, width: int = 16, levels: int = 4) -> None:
        super().__init__()
        if levels < 1:
            raise ConfigError(f"flow 'pyramid' has at least one level, found {levels}")
        self.levels = levels
        self.features = nn.Sequential(*_layer(3, width), *_layer(width, width))
        self.estimate = nn.Sequential(
            *_layer((2 * REACH + 1) ** 2 + width + 2, 2 * width),
            *_layer(2 * width, width),
            zeroed(conv(width, 2, bias=True)),
        )

    def forward(self, reference: Tensor, neighbour: Tensor) -> Tensor:
        return self.between(self.describe(reference), self.describe(neighbour), reference.shape[2:])

    def describe(self, frames: Tensor) -> Described:
        """What is known of every frame by itself: its features at each level, the finest first."""
        height, width = frames.shape[2:]
        whole = 2**self.levels
        level = F.pad(frames, (0, -width % whole, 0, -height % whole), mode="replicate")
        pyramid = [level := F.avg_pool2d(level, 2) for _ in range(self.levels)]
        return [_standardized(self.features(level), (2, 3)) for level in pyramid]

    def between(self, reference: Described, neighbour: Described, size: Sequence[int]) -> Tensor:
        """The flow between frames of (height, width) `size`, given what `describe` says of them."""
        flow = reference[-1].new_zeros(reference[-1].shape[0], 2, *reference[-1].shape[2:])
        for level in reversed(range(self.levels)):
            corrected = self._corrected(reference[level], neighbour[level], flow)
            flow = 2 * F.interpolate(corrected, scale_factor=2, mode="bilinear", align_corners=False)
        return flow[:, :, : size[0], : size[1]]

    def _corrected(self, reference: Tensor, neighbour: Tensor, flow: Tensor) -> Tensor:
        """`flow` in pixels of this level, corrected by the features of both frames."""
        costs = _standardized(matching_costs(reference, warp(neighbour, flow)), (1,))
        correction: Tensor = self.estimate(torch.cat((costs, reference, flow), 1))
        return flow + correction


def matching_costs(a: Tensor, b: Tensor, reach: int = REACH) -> Tensor:
    """Mean squared differences of the features `a` and `b` shifted by up to `reach` pixels, the border of `b` repeated.

    Channel (2 reach + 1) (v + reach) + (u + reach) of `(batch, (2 reach + 1)², height, width)` holds the mean over
    features of (a(x, y) - b(x + u, y + v))².
    """
    height, width = a.shape[2:]
    b = F.pad(b, (reach,) * 4, mode="replicate")
    shifts = [(v, u) for v in range(2 * reach + 1) for u in range(2 * reach + 1)]
    differences = [(a - b[:, :, v : v + height, u : u + width]).square().mean(1) for v, u in shifts]
    return torch.stack(differences, 1)


def _standardized(x: Tensor, dim: tuple[int, ...]) -> Tensor:
    """Mean 0 and about unit variance over `dim`, so that brightness and contrast matter little to a match."""
    centred = x - x.mean(dim, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(dim, keepdim=True) + 1e-4)


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return conv(inputs, outputs, bias=True), nn.LeakyReLU(0.1)
