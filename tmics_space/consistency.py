"""Consistency masks: tell a fusion of frames where the flow of a neighbour can be trusted."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ALPHA = 50.0
"""How fast the mask falls with the squared difference; the constant of L_ST in the authors' code."""
BLOCK = 4
"""The mask is computed on blocks of this many pixels a side, so that it costs little."""


class PhotometricConsistency(nn.Module):
    """exp(-50 |L(centre) - L(warped)|²): near 1 where a warped neighbour shows the same scene as the centre frame.

    L averages 3x3 blocks of 4x4 pixels, so a thin streak of rain hardly lowers the mask, while a wrong flow or an
    occlusion does. The mask is not differentiated: it measures the flow and does not train it.

    Args:
        scale: pixels of the frames, along each side, in one pixel of the masks: 1, 2 or 4.

    Shape:
        Centre frame `(batch, 3, height, width)` and neighbours `(batch, neighbours, 3, height, width)` in [0, 1], with
        sides divisible by `scale`, to `(batch, neighbours, height / scale, width / scale)` in (0, 1].

    References:
        Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018, eq. 3 (without the low-pass filter).
    """

    def __init__(self, scale: int = 1) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, reference: Tensor, warped: Tensor) -> Tensor:
        batch, neighbours, _, height, width = warped.shape
        centre, others = (_pooled(images.detach()) for images in (reference, warped.flatten(0, 1)))
        difference = centre.unsqueeze(1) - others.view(batch, neighbours, *others.shape[1:])
        low = F.avg_pool2d(difference.flatten(0, 1), 3, 1, 1, count_include_pad=False)
        mask = torch.exp(-ALPHA * low.square().sum(1)).view(batch, neighbours, *low.shape[2:])
        mask = F.interpolate(mask, scale_factor=BLOCK // self.scale, mode="bilinear", align_corners=False)
        return mask[..., : height // self.scale, : width // self.scale]


class Trust(nn.Module):
    """The masks of a fusion that trusts every flow: 1 everywhere. Arguments and shapes as `PhotometricConsistency`."""

    def __init__(self, scale: int = 1) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, reference: Tensor, warped: Tensor) -> Tensor:
        batch, neighbours, _, height, width = warped.shape
        return warped.new_ones(batch, neighbours, height // self.scale, width // self.scale)


def _pooled(images: Tensor) -> Tensor:
    """Average blocks; those at the lower and right border may be smaller."""
    return F.avg_pool2d(images, BLOCK, ceil_mode=True)
