"""TMICS as one would write it at first: the reference of its benchmark, and of the tests of its fast evaluation.

`plain(network)` shares, batches and rewrites nothing: torch's own modules, the guided filter of the published code
(cumulative sums, the guide repeated for every channel, once for every radius and epsilon), a flow that sees pairs of
frames, one pass for each branch. Parameters and their names stay, so both can be given equal weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.kernels.activation import PReLU
from nas.kernels.depthwise import DepthwiseConv2d
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel, TaskLoss
from tmics_space.alignment import OpticalFlow
from tmics_space.averaging import BranchScores
from tmics_space.blocks import SpatialGate
from tmics_space.flow import Described
from tmics_space.frequency import EPSILONS, FrequencyDecomposition
from tmics_space.rain_layer import SIZE, RainStreaks


def box_filter(image: Tensor, radius: int) -> Tensor:
    """Sums over windows as differences of cumulative sums, over the number of pixels inside."""

    def summed(x: Tensor) -> Tensor:
        for dim in (2, 3):
            before = [0, 0] * (3 - dim) + [radius + 1, radius]
            total = F.pad(x, before).cumsum(dim)
            length = x.shape[dim]
            x = total.narrow(dim, 2 * radius + 1, length) - total.narrow(dim, 0, length)
        return x

    return summed(image) / summed(torch.ones_like(image[:1, :1]))


def guided_filter(guide: Tensor, source: Tensor, radius: int, eps: float) -> Tensor:
    """Smooth `source` within the edges of `guide`, both (batch, channels, height, width)."""
    mean_guide, mean_source = box_filter(guide, radius), box_filter(source, radius)
    covariance = box_filter(guide * source, radius) - mean_guide * mean_source
    variance = box_filter(guide * guide, radius) - mean_guide * mean_guide
    slope = covariance / (variance + eps)
    offset = mean_source - slope * mean_guide
    return box_filter(slope, radius) * guide + box_filter(offset, radius)


def decompose(p: Tensor, radii: tuple[int, ...]) -> Tensor:
    guide = (p.amax(1, keepdim=True) - p.amin(1, keepdim=True)).repeat(1, p.shape[1], 1, 1)
    return torch.cat([guided_filter(guide, p, radius, eps) for radius in radii for eps in EPSILONS], 1)


class PlainFrequency(FrequencyDecomposition):
    def forward(self, x: Tensor) -> Tensor:
        p = self.project(x)
        low = decompose(p, self.radii)
        high = p.repeat(1, low.shape[1] // p.shape[1], 1, 1) - low
        return p + self.merge(torch.cat((self.low(low), self.high(high)), 1))


class PlainGate(SpatialGate):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(torch.cat((x.amax(1, keepdim=True), x.mean(1, keepdim=True)), 1)))


class PlainScores(BranchScores):
    def forward(self, dominant: Tensor, companion: Tensor) -> Tensor:
        difference = self.dominant(dominant) - self.companion(companion)
        return torch.sigmoid(difference.mean(self.over, keepdim=True) if self.over else difference)


class PlainStreaks(RainStreaks):
    def forward(self, features: Tensor) -> Tensor:
        return F.conv2d(self.maps(features), self.dictionary / 10, padding=SIZE // 2)


class PlainAlignment(OpticalFlow):
    """Describes the frames of every pair again."""

    def describe(self, frames: Tensor) -> Described:
        return []


PLAIN: dict[type, type] = {
    PReLU: nn.PReLU,
    DepthwiseConv2d: nn.Conv2d,
    SpatialGate: PlainGate,
    BranchScores: PlainScores,
    RainStreaks: PlainStreaks,
    FrequencyDecomposition: PlainFrequency,
    OpticalFlow: PlainAlignment,
}


def plain(network: nn.Module) -> nn.Module:
    """A copy of a network or supernet that computes the same plainly, its weights laid out channels first."""
    network = copy.deepcopy(network)
    for module in network.modules():
        module.__class__ = PLAIN.get(type(module), type(module))
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()
    return network


class PlainLevels:
    """First-order levels as a loop of one's own: each takes the gradient of everything, and moves what it owns."""

    def __init__(
        self,
        model: nn.Module,
        levels: Mapping[str, Level],
        losses: Mapping[str, TaskLoss],
        batch: Callable[[str, int], Any],
        steps: int,
    ) -> None:
        owner = Multilevel(model, levels, losses, batch, steps)  # says who owns what, and keeps the optimizers
        self.model, self.levels, self.losses = model, levels, losses
        self.optimizers, self.batch = owner.optimizers, batch

    def step(self, k: int) -> None:
        for name, level in self.levels.items():
            self.model.zero_grad()
            self.losses[level.loss](self.model, self.batch(level.split, k)).backward()
            self.optimizers[name].step()
