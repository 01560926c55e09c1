"""Windows of neighbouring frames, and random views of them for training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nas.errors import ConfigError
from tmics_space.data.stored import Frames, region


def window_indices(centre: int, length: int, frames: int = 5, before: int = 0) -> list[int]:
    """List the indices of the frames in a window.

    The clip is reflected at its ends without repeating the end frame: the window around frame 0 is 2, 1, 0, 1, 2.

    Args:
        centre: index of the centre frame.
        length: of the clip.
        frames: odd length of the window.
        before: number of additional frames before the window.

    Returns:
        `before + frames` indices.

    Raises:
        ConfigError: `frames` is even, or the centre is outside the clip.
    """
    if frames < 1 or frames % 2 == 0:
        raise ConfigError(f"the number of frames in a window must be odd, got {frames}")
    if not 0 <= centre < length:
        raise ConfigError(f"the centre of a window must be a frame of a clip of {length} frames, got {centre}")
    period = max(2 * (length - 1), 1)
    places = (abs(t) % period for t in range(centre - frames // 2 - before, centre + frames // 2 + 1))
    return [min(place, period - place) if length > 1 else 0 for place in places]


def window(clip: Tensor, centre: int, frames: int = 5) -> Tensor:
    """Return the window around a frame: `(length, ...)` to `(frames, ...)`."""
    return clip[window_indices(centre, len(clip), frames)]


def windows(clip: Tensor, frames: int = 5) -> Iterator[Tensor]:
    """Iterate over the windows around all frames, `(frames, ...)` each."""
    return (window(clip, centre, frames) for centre in range(len(clip)))


def temporal_median(clip: Tensor, frames: int = 5) -> Tensor:
    """Compute the median over the window around each frame, a baseline of deraining.

    Shape:
        `(length, 3, height, width)`, unchanged.
    """
    return torch.stack([_median(list(each)) for each in windows(clip, frames)])


def _median(planes: list[Tensor]) -> Tensor:
    """Compute the elementwise median of an odd number of tensors, faster than `median`, by half a bubble sort."""
    middle = len(planes) // 2
    for low in range(middle + 1):
        for high in range(len(planes) - 1, low, -1):
            pair = planes[high - 1], planes[high]
            planes[high - 1], planes[high] = torch.minimum(*pair), torch.maximum(*pair)
    return planes[middle]


class View(NamedTuple):
    """A view of a window: a crop, possibly mirrored and reversed in time."""

    top: int
    left: int
    height: int
    width: int
    mirror: bool = False
    backwards: bool = False

    def of(self, clip: Frames, indices: list[int]) -> Tensor:
        """Apply the view to frames of a clip: `(length, 3, ...)` to `(len(indices), 3, self.height, self.width)`."""
        order = indices[::-1] if self.backwards else indices
        seen = region(clip, order, self.top, self.left, self.height, self.width)
        return seen.flip(-1) if self.mirror else seen


def random_view(rng: np.random.Generator, height: int, width: int, crop: int, *, augment: bool = True) -> View:
    """Draw a random view.

    Args:
        rng: the source of random numbers.
        height: of the frames.
        width: of the frames.
        crop: side of the square in px.
        augment: mirror and reverse at random.

    Raises:
        ConfigError: the crop is larger than the frames.
    """
    if not 1 <= crop <= min(height, width):
        raise ConfigError(
            f"the crop must be from 1 to {min(height, width)} px for frames of {width}x{height}, got {crop}"
        )
    top, left = int(rng.integers(height - crop + 1)), int(rng.integers(width - crop + 1))
    mirror, backwards = (bool(coin) for coin in rng.integers(2, size=2))
    return View(top, left, crop, crop, augment and mirror, augment and backwards)
