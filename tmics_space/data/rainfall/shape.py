"""Statistics of the shape and the motion of rain, by correlations of the difference of rainy and clean frames."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from nas.errors import ConfigError

VISIBLE = 15.0
"""Of 255: the brightness above which a streak covers a pixel."""
BRIGHTNESS = (0, 64, 128, 192, 256)
"""The classes of the clean frame's brightness, of 255."""
LAGS = (8, 16)
"""The distances along streaks, in px."""
FURTHEST = 64
"""The greatest fall that is searched, in px."""


class RainShape(NamedTuple):
    """Correlations of the rain with itself, in [-1, 1], means over the frames of a clip."""

    across: float
    """At 1 px to the right."""
    along: tuple[float, ...]
    """At 8 and 16 px below, at the sideways shift where it is largest."""
    angle: float
    """The direction of the streaks in degrees from the vertical, positive if rain falls to the right: the one in which
    the correlation at 16 px is largest."""
    still: float
    """With the next frame at the same place; 0 for one frame."""
    falling: float
    """With the next frame at the shift where it is largest, 4 px or more below and the same for the whole clip."""
    fall: tuple[int, int]
    """That shift to the right and down, in px."""


def rain_of(rainy: Tensor, clean: Tensor) -> Tensor:
    """Return the difference of the frames, averaged over colours: `(frames, height, width)` float, of 255.

    Args:
        rainy: frames, `(frames, 3, height, width)` uint8.
        clean: frames of the same shape.

    Raises:
        ConfigError: the shapes differ.
    """
    if rainy.shape != clean.shape:
        raise ConfigError(f"rainy and clean must have one shape, got {tuple(rainy.shape)} and {tuple(clean.shape)}")
    return (rainy.float() - clean.float()).mean(1)


def coverage_by_brightness(rainy: Tensor, clean: Tensor) -> tuple[float, ...]:
    """Measure the share of pixels brighter by more than 15 of 255, by the brightness of the clean frame.

    Args:
        rainy: frames, `(frames, 3, height, width)` uint8.
        clean: frames of the same shape.

    Returns:
        A share for each class of `BRIGHTNESS`; NaN for a class without pixels.
    """
    covered, grey = rain_of(rainy, clean) > VISIBLE, clean.float().mean(1)
    classes = [(grey >= low) & (grey < high) for low, high in itertools.pairwise(BRIGHTNESS)]
    return tuple(float(covered[inside].float().mean()) for inside in classes)


def rain_shape(rainy: Tensor, clean: Tensor) -> RainShape:
    """Measure the shape and the motion of the rain of a clip.

    Args:
        rainy: frames, `(frames, 3, height, width)` uint8, larger than 32 px.
        clean: frames of the same shape.

    Raises:
        ConfigError: the shapes differ, or the frames are too small.
    """
    rain = rain_of(rainy, clean)
    if min(rain.shape[1:]) <= 2 * max(LAGS):
        raise ConfigError(f"frames must be larger than {2 * max(LAGS)} px, got {rain.shape[2]}x{rain.shape[1]}")
    itself = _correlation(rain, rain)
    along, angle = [], 0.0
    for lag in LAGS:
        side = [float(itself[lag, shift]) for shift in range(-lag, lag + 1)]
        along.append(max(side))
        angle = math.degrees(math.atan2(side.index(max(side)) - lag, lag))
    if len(rain) == 1:
        return RainShape(float(itself[0, 1]), tuple(along), angle, 0.0, 0.0, (0, 0))
    after = _correlation(rain[:-1], rain[1:])
    down, right = min(FURTHEST, rain.shape[1] // 2), min(FURTHEST // 2, rain.shape[2] // 2)
    near = torch.cat([after[4:down, -right:], after[4:down, :right]], 1)
    row, column = divmod(int(near.argmax()), 2 * right)
    fall = column - right, row + 4
    return RainShape(float(itself[0, 1]), tuple(along), angle, float(after[0, 0]), float(near.max()), fall)


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Correlate `first[y, x]` with `second[y + down, x + right]`, at `[down, right]`: the mean over frames.

    Each shift is normalised by its overlap; frames are padded, so nothing wraps around.
    """
    height, width = first.shape[1:]
    size = (2 * height, 2 * width)
    spectra = [torch.fft.rfft2(frames - frames.mean((1, 2), keepdim=True), size) for frames in (first, second)]
    products = torch.fft.irfft2(spectra[0].conj() * spectra[1], size)
    overlap = torch.fft.irfft2(torch.fft.rfft2(torch.ones(height, width), size).abs() ** 2, size)
    scale = first.std((1, 2), correction=0) * second.std((1, 2), correction=0)
    shares: Tensor = products / overlap.clamp(min=1) / scale.clamp(min=1e-9)[:, None, None]
    return shares.mean(0)
