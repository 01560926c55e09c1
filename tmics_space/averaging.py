"""AAS: the weight λ of the dominant branch in the output; the companion branch has the weight 1 - λ."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.registry import Kind
from tmics_space.blocks import two_convs, zeroed

AVERAGINGS = Kind("averaging", "tmics.averagings")
"""Classes and functions that make modules from (dominant, companion) to λ, for the option `averaging` of the space.

Both images and λ are as in `Averaging`.

Example:
    >>> @nas.register("averaging", "third")
    ... class Third(nn.Module):
    ...     def forward(self, dominant, companion):
    ...         return dominant.new_full((len(dominant), 1, 1, 1), 1 / 3)
"""


class Averaging(nn.Module):
    """λ dominant + (1 - λ) companion. Initially λ is one half.

    - `scalar`, `channel`, `pixel`: each branch scores its own image by convolutions; λ is the softmax over both scores.
      Scores are averaged over colours and pixels, over pixels, or not at all. 338 parameters
    - `legacy`: one sigmoid per colour from the dominant image, as in the authors' code, which then also multiplies λ by
      0.1 or 0.00001. 460 parameters
    - `free`: one learnable number, not limited to (0, 1) as in the other modes
    - `fixed`: one half

    Args:
        mode: a name of `AVERAGINGS`, or a mapping of `name` and arguments.

    Raises:
        UnknownNameError: no averaging has this name.

    Shape:
        Two images `(batch, 3, height, width)` to their average and λ `(batch, 1 or 3, 1 or height, 1 or width)`.
    """

    def __init__(self, mode: str | dict[str, Any] = "channel") -> None:
        super().__init__()
        self.mode = mode
        self.weighting = AVERAGINGS.create(mode, "options.averaging")

    def forward(self, dominant: Tensor, companion: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.weighting(dominant, companion)
        return weight * dominant + (1 - weight) * companion, weight


class BranchScores(nn.Module):
    """λ = softmax over the branches of their scores, which are averaged over the dimensions `over`."""

    def __init__(self, over: tuple[int, ...]) -> None:
        super().__init__()
        self.over = over
        self.dominant, self.companion = two_convs(3, 3, 3), two_convs(3, 3, 3)
        zeroed(self.dominant[-1])
        zeroed(self.companion[-1])

    def forward(self, dominant: Tensor, companion: Tensor) -> Tensor:
        difference = self._difference(dominant, companion)
        if self.over:
            difference = difference.mean(self.over, keepdim=True)
        return torch.sigmoid(difference)  # the softmax over two

    def _difference(self, dominant: Tensor, companion: Tensor) -> Tensor:
        """The dominant score less the companion's, both branches in one pass."""
        branches: Any = (self.dominant, self.companion)
        first, slope, last = zip(*branches, strict=True)
        weight, bias = (torch.cat([getattr(layer, name) for layer in first]) for name in ("weight", "bias"))
        hidden = F.conv2d(torch.cat((dominant, companion), 1), weight, bias, padding=1, groups=2)
        slopes = torch.cat([layer.weight for layer in slope]).repeat_interleave(3).view(-1, 1, 1)
        hidden = torch.lerp(hidden.relu(), hidden, slopes.to(hidden))
        weight = torch.cat((last[0].weight, -last[1].weight), 1)
        return F.conv2d(hidden, weight, last[0].bias - last[1].bias, padding=1)


def scalar() -> nn.Module:
    """Return the averaging with one λ for each item."""
    return BranchScores((1, 2, 3))


def channel() -> nn.Module:
    """Return the averaging with one λ for each colour."""
    return BranchScores((2, 3))


def pixel() -> nn.Module:
    """Return the averaging with one λ for each colour of each pixel."""
    return BranchScores(())


class ColourAttention(nn.Module):
    """λ = sigmoid of two dense layers on the mean colour of the dominant image, after a 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1, bias=False)
        self.dense = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), zeroed(nn.Linear(64, 3)))

    def forward(self, dominant: Tensor, companion: Tensor) -> Tensor:
        return torch.sigmoid(self.dense(self.mix(dominant).mean((2, 3))))[:, :, None, None]


class FreeWeight(nn.Module):
    """λ is the parameter itself, one number for all images: a squared distance is quadratic in it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, dominant: Tensor, companion: Tensor) -> Tensor:
        return self.weight * dominant.new_ones((dominant.shape[0], 1, 1, 1))


class HalfWeight(nn.Module):
    """λ = 1/2."""

    def forward(self, dominant: Tensor, companion: Tensor) -> Tensor:
        return dominant.new_full((dominant.shape[0], 1, 1, 1), 0.5)
