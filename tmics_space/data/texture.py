"""Synthetic clips with the brightness and detail of real ones, for use without data."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_DETAIL = {64: 0.2, 16: 0.1, 4: 0.05}  # size of the detail in px: its share of the brightness


def moving_texture(frames: int, height: int, width: int, seed: int = 0, velocity: tuple[int, int] = (2, 1)) -> Tensor:
    """Make a clip of smooth coloured noise that moves at constant velocity.

    The motion is exact: `clip[t, :, y, x] == clip[t + 1, :, y + velocity_y, x + velocity_x]`.

    Args:
        frames: number of frames.
        height: of the frames.
        width: of the frames.
        seed: of the noise.
        velocity: (x, y) in px per frame.

    Returns:
        The clip, `(frames, 3, height, width)` uint8.
    """
    generator = torch.Generator().manual_seed(seed)
    side = [height + abs(velocity[1]) * (frames - 1), width + abs(velocity[0]) * (frames - 1)]
    picture = torch.full((1, 3, *side), 0.45)
    for px, strength in _DETAIL.items():
        cells = [length // px + 2 for length in side]
        grey, colour = (torch.randn(1, channels, *cells, generator=generator) for channels in (1, 3))
        picture += strength * F.interpolate(grey + 0.3 * colour, side, mode="bicubic", align_corners=False)
    pixels = (picture[0].clamp(0, 1) * 255).round().to(torch.uint8)
    views = []
    for t in range(frames):
        left, top = (-v * t if v < 0 else v * (frames - 1 - t) for v in velocity)
        views.append(pixels[:, top : top + height, left : left + width])
    return torch.stack(views)
