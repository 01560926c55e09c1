"""AAS: the weight with which the dominant branch enters the output, the companion branch taking the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import UnknownNameError
from tmics_space.blocks import two_convs, zeroed


class Averaging(nn.Module):
    """λ dominant + (1 - λ) companion, where λ comes from `mode` and is one half at first.

    - `scalar`, `channel`, `pixel`: the softmax over the two branches of scores that each branch's own convolutions give
      its image, averaged over colours and pixels, over pixels, or not at all (338 parameters);
    - `legacy`: as in the authors' inference code, one sigmoid a colour, from the dominant image alone (460 parameters).
      That code then multiplies λ by 0.1 or 0.00001; this does not;
    - `free`: one learnable number, anywhere; `fixed`: one half for ever. In all other modes λ is in (0, 1).

    forward: two images `(batch, 3, height, width)` to their average and λ `(batch, 1 or 3, 1 or height, 1 or width)`.
    Raises `UnknownNameError` for another mode.
    """

    def __init__(self, mode: str = "channel") -> None:
        super().__init__()
        if mode not in MODES:
            raise UnknownNameError("averaging mode", mode, MODES)
        self.mode = mode
        self.weighting = MODES[mode]()

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


MODES: dict[str, Callable[[], nn.Module]] = {
    "scalar": lambda: BranchScores((1, 2, 3)),
    "channel": lambda: BranchScores((2, 3)),
    "pixel": lambda: BranchScores(()),
    "legacy": ColourAttention,
    "free": FreeWeight,
    "fixed": HalfWeight,
}
