"""Frame alignment: maps a window of frames to features of its centre frame, by optical flow or temporal grouping."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import ConfigError
from tmics_space.blocks import conv, depthwise_enhancement, depthwise_residual, he, normalization
from tmics_space.flow import Described, Framewise, photometric_loss, warp


class Aligned(NamedTuple):
    """The result of an alignment."""

    features: Tensor
    """`(batch, channels, height / scale, width / scale)`"""
    photometric: Tensor
    """The photometric loss of the flow, a scalar; zero if there is no flow."""


class OpticalFlow(nn.Module):
    """OFM: warps every neighbour onto the centre frame by its optical flow, then convolves all frames in order.

    Frames are warped at full size. With `scale` 2, each square of 2x2 pixels then becomes one pixel with four times the
    channels (`torch.pixel_unshuffle`), and the convolutions work at half size.

    The photometric term is the mean over the neighbours, in training mode only. `forward` also takes `described`, the
    result of `describe` on the same frames, to reuse it.

    Args:
        channels: of the features.
        flow: a flow provider's module, called as `flow(reference, neighbour)`.
        frames: odd length of the window, at least 3.
        normalize: name of the norm of the features (`tmics_space.blocks.normalization`).
        scale: pixels of a frame, along each side, in one pixel of the features; height and width must be divisible.
        consistency: maps the centre frame and the warped neighbours to a mask for each, at the size of the features
            (`tmics_space.consistency`), which the convolutions also take.

    Raises:
        ConfigError: `frames` is even or below 3, or `forward` gets frames of another shape.

    Shape:
        Frames `(batch, frames, 3, height, width)` in [0, 1] to `Aligned`.
    """

    def __init__(
        self,
        channels: int,
        flow: nn.Module,
        frames: int = 5,
        *,
        normalize: str = "none",
        scale: int = 1,
        consistency: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.frames = _window(frames)
        self.scale = scale
        self.flow = flow
        self.consistency = consistency
        masks = 0 if consistency is None else frames - 1
        self.merge = _merge(3 * scale**2 * frames + masks, channels)
        self.norm = normalization(normalize, channels)

    def forward(self, frames: Tensor, described: Described | None = None) -> Aligned:
        _check(frames, self.frames)
        centre = self.frames // 2
        neighbours = torch.cat((frames[:, :centre], frames[:, centre + 1 :]), 1).flatten(0, 1)
        # Repeated and not expanded: whether an expanded batch can be flattened depends on its size.
        reference = frames[:, centre].repeat_interleave(self.frames - 1, 0)
        flow = self._flow(reference, neighbours, self.describe(frames) if described is None else described)
        warped = warp(neighbours, flow)
        photometric = photometric_loss(reference, warped, flow) if self.training else frames.new_zeros(())
        before, after = self._window(_gathered(warped, self.scale)).tensor_split((centre,), 1)
        stack = [before.flatten(1, 2), _gathered(frames[:, centre], self.scale), after.flatten(1, 2)]
        if self.consistency is not None:
            stack.append(self.consistency(frames[:, centre], self._window(warped)))
        return Aligned(self.norm(self.merge(torch.cat(stack, 1))), photometric)

    def describe(self, frames: Tensor) -> Described:
        """Compute the per-frame features of the flow, which neighbouring windows can share.

        Args:
            frames: `(batch, frames, 3, height, width)` in [0, 1].

        Returns:
            Tensors `(batch, frames, ...)`; an empty list if the flow only takes pairs.
        """
        if not isinstance(self.flow, Framewise):
            return []
        return [level.view(*frames.shape[:2], *level.shape[1:]) for level in self.flow.describe(frames.flatten(0, 1))]

    def _window(self, images: Tensor) -> Tensor:
        """Return images of all neighbours as `(batch, neighbours, channels, height, width)`."""
        return images.view(-1, self.frames - 1, *images.shape[1:])

    def _flow(self, reference: Tensor, neighbours: Tensor, described: Described) -> Tensor:
        provider: Any = self.flow
        if not described:
            return provider(reference, neighbours)  # type: ignore[no-any-return]
        centre = self.frames // 2
        others = [torch.cat((level[:, :centre], level[:, centre + 1 :]), 1).flatten(0, 1) for level in described]
        centres = [level[:, centre].repeat_interleave(self.frames - 1, 0) for level in described]
        return provider.between(centres, others, reference.shape[2:])  # type: ignore[no-any-return]


class TemporalGrouping(nn.Module):
    """TGM: merges the frames {t - d, t, t + d} of each distance d, then merges these groups, the farthest first.

    The photometric term is zero. `forward` ignores `described`: windows share no features.

    Args:
        channels: of the features.
        frames: odd length of the window, at least 3.
        normalize: name of the norm of the features (`tmics_space.blocks.normalization`).
        scale: pixels of a frame, along each side, in one pixel of the features; height and width must be divisible.

    Raises:
        ConfigError: `frames` is even or below 3, or `forward` gets frames of another shape.

    Shape:
        Frames `(batch, frames, 3, height, width)` in [0, 1] to `Aligned`.
    """

    def __init__(self, channels: int, frames: int = 5, *, normalize: str = "none", scale: int = 1) -> None:
        super().__init__()
        self.frames = _window(frames)
        self.scale = scale
        groups = frames // 2
        self.groups = nn.ModuleList(_merge(9 * scale**2, channels) for _ in range(groups))
        self.merge = _merge(groups * channels, channels)
        self.norm = normalization(normalize, channels)

    def forward(self, frames: Tensor, described: Described | None = None) -> Aligned:
        _check(frames, self.frames)
        centre = self.frames // 2
        distances = range(centre, 0, -1)
        members = [_gathered(frames[:, centre - d : centre + d + 1 : d].flatten(1, 2), self.scale) for d in distances]
        groups = [merge(group) for merge, group in zip(self.groups, members, strict=True)]
        return Aligned(self.norm(self.merge(torch.cat(groups, 1))), frames.new_zeros(()))


def _merge(inputs: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        he(conv(inputs, channels, bias=True)), depthwise_residual(channels), depthwise_enhancement(channels)
    )


def _gathered(images: Tensor, scale: int) -> Tensor:
    """Move each square of `scale` x `scale` pixels into channels."""
    return images if scale == 1 else F.pixel_unshuffle(images, scale)


def _window(frames: int) -> int:
    if frames < 3 or frames % 2 == 0:
        raise ConfigError(f"'frames' must be odd and at least 3, got {frames}")
    return frames


def _check(frames: Tensor, count: int) -> None:
    if frames.dim() != 5 or frames.shape[1:3] != (count, 3):
        raise ConfigError(
            f"frames must have the shape (batch, {count}, 3, height, width), got {tuple(frames.shape)}. Set 'frames' of"
            " the space and of the task to the same number"
        )
