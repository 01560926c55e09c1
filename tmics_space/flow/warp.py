"""Backward warping by a flow in pixels, and the loss that trains a flow without knowing the true one."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-3
"""The width of the Charbonnier penalty's round bottom, in image intensities."""


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """`image` seen through `flow`: out(x, y) = image(x + u, y + v), bilinear, every batch item by its own flow.

    image: `(batch, channels, height, width)`; flow: `(batch, 2, height, width)`, the displacements (u, v) along (x, y)
    in pixels. Pixel centres have integer coordinates and positions outside are clamped to the border: what
    `grid_sample` calls `align_corners=True` and `padding_mode="border"`. Unlike it, this is exact for integer flows and
    can be differentiated twice.
    """
    height, width = image.shape[-2:]
    dtype = torch.promote_types(image.dtype, torch.float32)  # coordinates do not fit into half precision
    flow = flow.to(dtype)
    x = (torch.arange(width, device=flow.device, dtype=dtype) + flow[:, 0]).clamp(0, width - 1)
    y = (torch.arange(height, device=flow.device, dtype=dtype).unsqueeze(1) + flow[:, 1]).clamp(0, height - 1)
    # A flow that is not finite makes the output so, and never an index out of range.
    left, top = x.detach().floor().nan_to_num(0), y.detach().floor().nan_to_num(0)
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    across, down = (x - left).unsqueeze(1), (y - top).unsqueeze(1)
    pixels = image.to(dtype).flatten(2)

    def at(row: Tensor, column: Tensor) -> Tensor:
        index = (row * width + column).long().flatten(1).unsqueeze(1).expand_as(pixels)
        return pixels.gather(2, index).view_as(image)

    above = torch.lerp(at(top, left), at(top, right), across)
    below = torch.lerp(at(bottom, left), at(bottom, right), across)
    return torch.lerp(above, below, down).to(image.dtype)


def photometric_loss(reference: Tensor, warped: Tensor, flow: Tensor, smoothness: float = 0.02) -> Tensor:
    """How badly `flow` explains `reference` by the neighbour it `warped`: a scalar.

    The Charbonnier penalty sqrt(d² + 0.001²) of the difference of the images `(batch, 3, height, width)` in [0, 1],
    averaged, plus `smoothness` times the mean of |du| + |dv| over neighbouring pixels of the flow
    `(batch, 2, height, width)` in pixels.
    """
    difference = torch.sqrt((reference - warped).square() + EPSILON**2).mean()
    variation = flow.diff(dim=2).abs().sum() + flow.diff(dim=3).abs().sum()
    return difference + smoothness * variation / flow[:, 0].numel()
