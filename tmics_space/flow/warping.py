"""Backward warping by a flow in pixels, and the photometric loss, which trains a flow without ground truth."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-3
"""The epsilon of the Charbonnier penalty, in units of intensity."""
ROWS = 32
"""Number of rows that the CPU warps together, if it needs no gradient."""


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Warp backward by bilinear interpolation: out(x, y) = image(x + u, y + v).

    Pixel centres have integer coordinates. Positions outside are clamped to the border. These are the conventions
    `align_corners=True` and `padding_mode="border"` of `grid_sample`. Unlike `grid_sample`, this function is exact for
    integer flows and twice differentiable.

    Args:
        image: `(batch, channels, height, width)`.
        flow: displacements (u, v) along (x, y), `(batch, 2, height, width)` in pixels.

    Returns:
        The warped image, of the shape of `image`.
    """
    # In tiles of a few rows, what is computed stays in the processor's cache. Exported programs have no loops.
    tiled = image.is_cpu and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if not tiled:
        return _warped(image, flow, 0)
    tiles = torch.split(flow, ROWS, 2)
    return torch.cat([_warped(image, tile, ROWS * number) for number, tile in enumerate(tiles)], 2)


def _warped(image: Tensor, flow: Tensor, first: int) -> Tensor:
    """Compute the rows from `first` on, for which `flow` is given."""
    height, width = image.shape[-2:]
    dtype = torch.promote_types(image.dtype, torch.float32)  # half precision is too coarse for coordinates
    flow = flow.to(dtype)
    x = (torch.arange(width, device=flow.device, dtype=dtype) + flow[:, 0]).clamp(0, width - 1)
    rows = torch.arange(first, first + flow.shape[2], device=flow.device, dtype=dtype)
    y = (rows.unsqueeze(1) + flow[:, 1]).clamp(0, height - 1)
    # A flow that is not finite gives such an output, never an index out of range.
    left, top = x.detach().floor().nan_to_num(0), y.detach().floor().nan_to_num(0)
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    across, down = (x - left).unsqueeze(1), (y - top).unsqueeze(1)
    pixels = image.to(dtype).flatten(2)
    shape = (*image.shape[:2], *flow.shape[2:])

    def at(row: Tensor, column: Tensor) -> Tensor:
        index = (row * width + column).long().flatten(1).unsqueeze(1).expand(-1, shape[1], -1)
        return pixels.gather(2, index).view(shape)

    above = torch.lerp(at(top, left), at(top, right), across)
    below = torch.lerp(at(bottom, left), at(bottom, right), across)
    return torch.lerp(above, below, down).to(image.dtype)


def photometric_loss(reference: Tensor, warped: Tensor, flow: Tensor, smoothness: float = 0.02) -> Tensor:
    """Compute the mean of sqrt(d² + 0.001²) plus `smoothness` times the mean of |du| + |dv|.

    Here d is the difference of the images, and du and dv are differences of the flow between neighbouring pixels.

    Args:
        reference: images, `(batch, 3, height, width)` in [0, 1].
        warped: the neighbours, warped by `flow`.
        flow: `(batch, 2, height, width)` in pixels.
        smoothness: weight of the second term.

    Returns:
        A scalar.
    """
    difference = torch.sqrt((reference - warped).square() + EPSILON**2).mean()
    variation = flow.diff(dim=2).abs().sum() + flow.diff(dim=3).abs().sum()
    return difference + smoothness * variation / flow[:, 0].numel()
