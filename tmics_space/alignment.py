"""Frame alignment: from a window of frames to the features of its centre, by optical flow or by temporal grouping."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas.errors import ConfigError
from tmics_space.blocks import conv, depthwise_enhancement, depthwise_residual, he, normalization
from tmics_space.flow import Described, Framewise, photometric_loss, warp


class Aligned(NamedTuple):
    """What an alignment returns."""

    features: Tensor
    """`(batch, channels, height, width)`"""
    photometric: Tensor
    """How badly the flow explains the frames, a scalar; zero where no flow is learned."""


class OpticalFlow(nn.Module):
    """OFM: every neighbour warped onto the centre frame by its optical flow, all in temporal order, and convolutions.

    `flow(reference, neighbour)` is a flow provider's module. forward: `(batch, frames, 3, height, width)` in [0, 1] to
    `Aligned`, whose photometric term is the mean over the neighbours, in training mode only; `described` is what
    `describe` says of the frames, where it is known already. Raises `ConfigError` for another number of frames.
    """

    def __init__(self, channels: int, flow: nn.Module, frames: int = 5, *, normalize: str = "none") -> None:
        super().__init__()
        self.frames = _window(frames)
        self.flow = flow
        self.merge = _merge(3 * frames, channels)
        self.norm = normalization(normalize, channels)

    def forward(self, frames: Tensor, described: Described | None = None) -> Aligned:
        _check(frames, self.frames)
        centre = self.frames // 2
        neighbours = torch.cat((frames[:, :centre], frames[:, centre + 1 :]), 1).flatten(0, 1)
        reference = frames[:, centre].repeat_interleave(self.frames - 1, 0)
        flow = self._flow(reference, neighbours, self.describe(frames) if described is None else described)
        warped = warp(neighbours, flow)
        photometric = photometric_loss(reference, warped, flow) if self.training else frames.new_zeros(())
        stack = warped.view(-1, self.frames - 1, *frames.shape[2:])
        stack = torch.cat((stack[:, :centre], frames[:, centre : centre + 1], stack[:, centre:]), 1)
        return Aligned(self.norm(self.merge(stack.flatten(1, 2))), photometric)

    def describe(self, frames: Tensor) -> Described:
        """What the flow wants to know of each frame by itself, `(batch, frames, ...)`: nothing where it takes pairs.

        The windows around neighbouring frames have all but one of their frames in common.
        """
        if not isinstance(self.flow, Framewise):
            return []
        return [level.view(*frames.shape[:2], *level.shape[1:]) for level in self.flow.describe(frames.flatten(0, 1))]

    def _flow(self, reference: Tensor, neighbours: Tensor, described: Described) -> Tensor:
        provider: Any = self.flow
        if not described:
            return provider(reference, neighbours)  # type: ignore[no-any-return]
        centre = self.frames // 2
        others = [torch.cat((level[:, :centre], level[:, centre + 1 :]), 1).flatten(0, 1) for level in described]
        centres = [level[:, centre].repeat_interleave(self.frames - 1, 0) for level in described]
        return provider.between(centres, others, reference.shape[2:])  # type: ignore[no-any-return]


class TemporalGrouping(nn.Module):
    """TGM: the frames at each distance d around the centre, {t - d, t, t + d}, merged; then the groups, farthest first.

    forward: `(batch, frames, 3, height, width)` in [0, 1] to `Aligned`, its photometric term zero. Raises `ConfigError`
    for another number of frames. Every frame has another place in every window, so windows share nothing.
    """

    def __init__(self, channels: int, frames: int = 5, *, normalize: str = "none") -> None:
        super().__init__()
        self.frames = _window(frames)
        groups = frames // 2
        self.groups = nn.ModuleList(_merge(9, channels) for _ in range(groups))
        self.merge = _merge(groups * channels, channels)
        self.norm = normalization(normalize, channels)

    def forward(self, frames: Tensor, described: Described | None = None) -> Aligned:
        _check(frames, self.frames)
        centre = self.frames // 2
        distances = range(centre, 0, -1)
        members = [frames[:, centre - d : centre + d + 1 : d].flatten(1, 2) for d in distances]
        groups = [merge(group) for merge, group in zip(self.groups, members, strict=True)]
        return Aligned(self.norm(self.merge(torch.cat(groups, 1))), frames.new_zeros(()))


def _merge(inputs: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        he(conv(inputs, channels, bias=True)), depthwise_residual(channels), depthwise_enhancement(channels)
    )


def _window(frames: int) -> int:
    if frames < 3 or frames % 2 == 0:
        raise ConfigError(f"a window has an odd number of frames, at least 3, found {frames}")
    return frames


def _check(frames: Tensor, count: int) -> None:
    if frames.dim() != 5 or frames.shape[1:3] != (count, 3):
        raise ConfigError(
            f"expected frames (batch, {count}, 3, height, width), found {tuple(frames.shape)}; 'frames' of the space"
            " and of the task are alike"
        )
