"""The auxiliary rain layer: rain maps convolved with a learnable dictionary of streaks."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tmics_space.blocks import two_convs

SIZE = 9
"""Height and width of a streak, in pixels."""


def rain_dictionary(streaks: int = 32) -> Tensor:
    """Make vertical streaks of growing length, each with sum 1 and equal in all colours.

    Kernel i of 1...32 is exp(-(x'² + (y'/l)²) / 2 s²), normalised, for integers x, y from -4 to 4. Here
    x' = max(|x| - m, 0) and y' = max(|y| - m, 0). For i <= 12, m = 0, l = 2.5 + i/4, s = 1/4. For i > 12, m = 1,
    l = 2 + i/4, s = 1/2.

    Args:
        streaks: their number; the values of i are spread evenly over 1...32.

    Returns:
        Kernels `(3, streaks, 9, 9)`.

    References:
        Wang et al., "RCDNet", CVPR 2020 (the script in the authors' code).
    """
    return torch.empty(3, streaks, SIZE, SIZE).copy_(_streaks(streaks))


@functools.lru_cache(maxsize=16)
def _streaks(count: int) -> Tensor:
    """The kernels of one colour in float64; cached, since the meta device computes each of their formulas in Python."""
    i = torch.linspace(1, 32, count, dtype=torch.float64, device="cpu").view(-1, 1, 1)
    thin = i <= 12
    margin = torch.where(thin, 0.0, 1.0)
    length = torch.where(thin, 2.5, 2.0) + i / 4
    deviation = torch.where(thin, 0.25, 0.5)
    distance = (torch.arange(SIZE, dtype=torch.float64, device="cpu") - SIZE // 2).abs()
    x, y = ((distance.view(shape) - margin).clamp(min=0) for shape in ((1, 1, -1), (1, -1, 1)))
    kernel = torch.exp(-(x**2 + (y / length) ** 2) / (2 * deviation**2))
    normalised: Tensor = kernel / kernel.sum((1, 2), keepdim=True)
    return normalised


class RainStreaks(nn.Module):
    """M(K; F): the sum of `streaks` rain maps, each convolved with its streak of the learnable dictionary K / 10.

    Args:
        channels: of the features F.
        streaks: number of streaks; K starts as `rain_dictionary(streaks)`.

    Shape:
        Features `(batch, channels, height, width)` to the rain layer `(batch, 3, height, width)`.
    """

    def __init__(self, channels: int, streaks: int = 32) -> None:
        super().__init__()
        self.maps = two_convs(channels, max(1, channels // 2), streaks)
        self.dictionary = nn.Parameter(rain_dictionary(streaks))

    def forward(self, features: Tensor) -> Tensor:
        return _convolved(self.maps(features), self.dictionary / 10)


class NoStreaks(nn.Module):
    """A rain layer without rain, in the place of `RainStreaks`."""

    def forward(self, features: Tensor) -> Tensor:
        return features.new_zeros(len(features), 3, *features.shape[2:])


def _convolved(maps: Tensor, kernels: Tensor) -> Tensor:
    """Convolve `maps` with `kernels` `(3, streaks, 9, 9)`; keep the size of `maps`.

    A convolution with three outputs leaves most of a vector register empty. So each square of four pixels is computed
    at once, as twelve outputs of 10x10 kernels, in a third of the time.
    """
    height, width = maps.shape[-2:]
    shifted = [F.pad(kernels, (right, 1 - right, down, 1 - down)) for down in (0, 1) for right in (0, 1)]
    even = F.pad(maps, (0, width % 2, 0, height % 2))
    squares = F.conv2d(even, torch.stack(shifted, 1).flatten(0, 1), stride=2, padding=SIZE // 2)
    return F.pixel_shuffle(squares, 2)[..., :height, :width]
