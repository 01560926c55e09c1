"""Windows of neighbouring frames, and the random views of them that training sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nas.errors import ConfigError
from tmics_space.data.stored import StoredFrames


def window_indices(centre: int, length: int, frames: int = 5, before: int = 0) -> list[int]:
    """The indices of the `frames` frames around `centre` of a clip of `length`, and of `before` more ahead of them.

    The clip is reflected at its ends, where the end frame is not repeated: around 0 of a long one they are 2, 1, 0, 1,
    2. Raises `ConfigError` for an even `frames` or a centre outside the clip.
    """
    if frames < 1 or frames % 2 == 0:
        raise ConfigError(f"a window of {frames} frames has no centre; expected an odd number")
    if not 0 <= centre < length:
        raise ConfigError(f"frame {centre} is outside a clip of {length} frames")
    period = max(2 * (length - 1), 1)
    places = (abs(t) % period for t in range(centre - frames // 2 - before, centre + frames // 2 + 1))
    return [min(place, period - place) if length > 1 else 0 for place in places]


def window(clip: Tensor, centre: int, frames: int = 5) -> Tensor:
    """The window around a frame: (length, ...) to (frames, ...)."""
    return clip[window_indices(centre, len(clip), frames)]


def windows(clip: Tensor, frames: int = 5) -> Iterator[Tensor]:
    """The window around every frame in turn, (frames, ...) each."""
    return (window(clip, centre, frames) for centre in range(len(clip)))


def temporal_median(clip: Tensor, frames: int = 5) -> Tensor:
    """The median over the window around each frame, a baseline of deraining: (length, 3, height, width) to the same."""
    return torch.stack([_median(list(each)) for each in windows(clip, frames)])


def _median(planes: list[Tensor]) -> Tensor:
    """Of an odd number of tensors, element by element: half a bubble sort, many times faster than `median`."""
    middle = len(planes) // 2
    for low in range(middle + 1):
        for high in range(len(planes) - 1, low, -1):
            pair = planes[high - 1], planes[high]
            planes[high - 1], planes[high] = torch.minimum(*pair), torch.maximum(*pair)
    return planes[middle]


class View(NamedTuple):
    """One way to look at a window: cut out, perhaps mirrored and played backwards."""

    top: int
    left: int
    height: int
    width: int
    mirror: bool = False
    backwards: bool = False

    def of(self, clip: Tensor | StoredFrames, indices: list[int]) -> Tensor:
        """What it shows of some frames of a clip: (length, 3, ...) to (len(indices), 3, self.height, self.width)."""
        order = indices[::-1] if self.backwards else indices
        part = (..., slice(self.top, self.top + self.height), slice(self.left, self.left + self.width))
        seen = clip[part][order] if isinstance(clip, Tensor) else clip[order][part]  # no whole frame is copied
        return seen.flip(-1) if self.mirror else seen


def random_view(rng: np.random.Generator, height: int, width: int, crop: int, *, augment: bool = True) -> View:
    """A random square of `crop` px of frames (height, width), turned at random if `augment`. Raises `ConfigError`."""
    if not 1 <= crop <= min(height, width):
        raise ConfigError(f"a crop of {crop} px does not fit frames of {width}x{height}")
    top, left = int(rng.integers(height - crop + 1)), int(rng.integers(width - crop + 1))
    mirror, backwards = (bool(coin) for coin in rng.integers(2, size=2))
    return View(top, left, crop, crop, augment and mirror, augment and backwards)
