"""Auxiliary rain streaks: rain maps convolved with a learnable dictionary of streaks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tmics_space.blocks import two_convs

SIZE = 9
"""Streaks are drawn on 9x9 pixels."""


def rain_dictionary(streaks: int = 32) -> Tensor:
    """Vertical streaks of growing length `(3, streaks, 9, 9)`, each summing to 1, alike in all colours.

    Kernel i of 1...32 is exp(-(x'² + (y'/l)²) / 2 s²), normalised, on integers x, y from -4 to 4. Here x' is |x| - m,
    or 0 where that is negative, and y' alike; m = 0, l = 2.5 + i/4, s = 1/4 for i <= 12, and m = 1, l = 2 + i/4,
    s = 1/2 above (the script of RCDNet, Wang et al., CVPR 2020). Fewer or more `streaks` spread i evenly over 1...32.
    """
    i = torch.linspace(1, 32, streaks, dtype=torch.float64).view(-1, 1, 1)
    thin = i <= 12
    margin = torch.where(thin, 0.0, 1.0)
    length = torch.where(thin, 2.5, 2.0) + i / 4
    deviation = torch.where(thin, 0.25, 0.5)
    distance = (torch.arange(SIZE, dtype=torch.float64) - SIZE // 2).abs()
    x, y = ((distance.view(shape) - margin).clamp(min=0) for shape in ((1, 1, -1), (1, -1, 1)))
    kernel = torch.exp(-(x**2 + (y / length) ** 2) / (2 * deviation**2))
    kernel = kernel / kernel.sum((1, 2), keepdim=True)
    return kernel.to(torch.get_default_dtype()).repeat(3, 1, 1, 1)


class RainStreaks(nn.Module):
    """M(K; features): `streaks` rain maps, each convolved with its streak of the learnable dictionary K, and summed.

    The dictionary starts as `rain_dictionary(streaks)`, and enters divided by 10.
    forward: features `(batch, channels, height, width)` to the rain layer `(batch, 3, height, width)`.
    """

    def __init__(self, channels: int, streaks: int = 32) -> None:
        super().__init__()
        self.maps = two_convs(channels, max(1, channels // 2), streaks)
        self.dictionary = nn.Parameter(rain_dictionary(streaks))

    def forward(self, features: Tensor) -> Tensor:
        return _convolved(self.maps(features), self.dictionary / 10)


def _convolved(maps: Tensor, kernels: Tensor) -> Tensor:
    """`maps` convolved with `kernels` `(3, streaks, 9, 9)`, at the size of `maps`.

    Three outputs would leave most of a vector register empty, so each square of four pixels is computed at once, as
    twelve outputs of kernels of 10x10: in a third of the time.
    """
    height, width = maps.shape[-2:]
    shifted = [F.pad(kernels, (right, 1 - right, down, 1 - down)) for down in (0, 1) for right in (0, 1)]
    even = F.pad(maps, (0, width % 2, 0, height % 2))
    squares = F.conv2d(even, torch.stack(shifted, 1).flatten(0, 1), stride=2, padding=SIZE // 2)
    return F.pixel_shuffle(squares, 2)[..., :height, :width]
