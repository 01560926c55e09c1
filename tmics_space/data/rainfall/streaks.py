"""Falling streaks: their motion from frame to frame, and their drawing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from tmics_space.data.rainfall.presets import Layer, LogNormal, RainPreset

Array: TypeAlias = npt.NDArray[np.float64]
Map: TypeAlias = npt.NDArray[np.float32]

_SIGMAS = 2.8  # half the width of a streak in sigmas: the Gaussian is cut at 2 % of its maximum
_STEEPEST = 60.0  # greatest angle from the vertical in degrees: drawing proceeds row by row
_FASTEST = 3.0  # greatest change of the gust in degrees per frame
_MEMORY = 0.9  # share of the gust that remains in the next frame


class Streaks(NamedTuple):
    """Streaks of one layer: centres and lengths in px, tilt in degrees from the rain's angle, brightness in [0, 1]."""

    x: Array
    y: Array
    length: Array
    tilt: Array
    brightness: Array


class Box(NamedTuple):
    """The region of streaks: the frame and a margin, so that the density of rain is uniform up to the border."""

    margin: float
    height: float
    width: float


def fall(preset: RainPreset, seed: int, height: int, width: int) -> Iterator[list[Map]]:
    """Yield for each frame, without end, one brightness map per layer.

    A frame does not depend on those after it: each has its own random numbers.

    Args:
        preset: kind of rain.
        seed: of the rain.
        height: of the frames.
        width: of the frames.

    Yields:
        Maps `(height, width)` in [0, 1], from far to near.
    """
    clip = np.random.default_rng([seed, 0])
    angle, gust = clip.normal(0, preset.clip_angle), 0.0
    boxes = [_box(layer, height, width) for layer in preset.layers]
    falling = [_spawn(preset, layer, 1.0, box, clip) for layer, box in zip(preset.layers, boxes, strict=True)]
    for frame in itertools.count():
        rng = np.random.default_rng([seed, frame + 1])
        step = (_MEMORY - 1) * gust + rng.normal(0, preset.gust)
        gust += float(np.clip(step, -_FASTEST, _FASTEST))
        maps = []
        for k, (layer, box) in enumerate(zip(preset.layers, boxes, strict=True)):
            # Thinning by `coherence` plus a Poisson number of new streaks keeps the number Poisson-distributed.
            lives = rng.random(len(falling[k].x)) < preset.coherence
            old = _move(
                Streaks(*(value[lives] for value in falling[k])), angle + gust, layer.speed, preset.shutter, box
            )
            new = _spawn(preset, layer, 1 - preset.coherence, box, rng)
            falling[k] = Streaks(*(np.concatenate(pair) for pair in zip(old, new, strict=True)))
            maps.append(draw(falling[k], angle + gust, layer.width, height, width))
        yield maps


def draw(streaks: Streaks, angle: float, fwhm: float, height: int, width: int) -> Map:
    """Draw anti-aliased capsules with a Gaussian cross-section; overlaps take the maximum.

    Args:
        streaks: to draw.
        angle: of the rain, in degrees from the vertical; positive if rain falls to the right.
        fwhm: full width of a streak at half its brightness, in px.
        height: of the map.
        width: of the map.

    Returns:
        A brightness map, `(height, width)`.
    """
    canvas = np.zeros((height, width), dtype=np.float32)
    sigma = fwhm / math.sqrt(8 * math.log(2))
    reach = _SIGMAS * sigma
    theta = _theta(angle, streaks)
    down, right, half = np.cos(theta), np.sin(theta), streaks.length / 2

    # One entry per (streak, row of it), then as many columns around the axis as the most tilted streak needs.
    top = np.ceil(streaks.y - half * down - reach).clip(0).astype(np.intp)
    bottom = np.floor(streaks.y + half * down + reach).clip(max=height - 1).astype(np.intp)
    rows = np.maximum(bottom - top + 1, 0)
    if not rows.sum():
        return canvas
    streak = np.repeat(np.arange(len(rows)), rows)
    row = np.arange(len(streak)) - np.repeat(np.cumsum(rows) - rows, rows) + top[streak]
    from_centre = row - streaks.y[streak]
    furthest = (half * abs(right))[streak]
    axis = streaks.x[streak] + (from_centre * np.tan(theta)[streak]).clip(-furthest, furthest)
    across = reach / down.min()
    column = np.ceil(axis - across).astype(np.intp)[:, None] + np.arange(int(2 * across) + 1)

    def each(value: Array) -> Map:
        return value.astype(np.float32)[:, None]

    dx, dy = (column - streaks.x[streak, None]).astype(np.float32), each(from_centre)
    cos, sin, end = each(down[streak]), each(right[streak]), each(half[streak])
    along = (dx * sin + dy * cos).clip(-end, end)
    squared = (dx - along * sin) ** 2 + (dy - along * cos) ** 2
    light = each(streaks.brightness[streak]) * np.exp(squared * np.float32(-0.5 / sigma**2))
    inside = (column >= 0) & (column < width)
    np.maximum.at(canvas.reshape(-1), (row[:, None] * width + column)[inside], light[inside])
    return canvas


def _theta(angle: float, streaks: Streaks) -> Array:
    return np.asarray(np.radians(np.clip(angle + streaks.tilt, -_STEEPEST, _STEEPEST)), dtype=np.float64)


def _box(layer: Layer, height: int, width: int) -> Box:
    margin = layer.length[1] / 2 + 2 * layer.width
    return Box(margin, height + 2 * margin, width + 2 * margin)


def _move(streaks: Streaks, angle: float, speed: float | None, shutter: float, box: Box) -> Streaks:
    """Move streaks by one frame; those that leave the box re-enter on the opposite side."""
    if speed is None:
        theta, way = _theta(angle, streaks), streaks.length / shutter
    else:  # all at one velocity, so that a frame is the one before at another place
        theta, way = np.full_like(streaks.tilt, math.radians(angle)), np.full_like(streaks.length, speed)
    return streaks._replace(
        x=(streaks.x + way * np.sin(theta) + box.margin) % box.width - box.margin,
        y=(streaks.y + way * np.cos(theta) + box.margin) % box.height - box.margin,
    )


def _spawn(preset: RainPreset, layer: Layer, part: float, box: Box, rng: np.random.Generator) -> Streaks:
    """Draw a Poisson number of new streaks with the mean `part` times the layer's density."""
    n = int(rng.poisson(part * layer.density * 1e-6 * box.height * box.width))
    law = layer.brightness
    if isinstance(law, LogNormal):
        brightness = (law.median * np.exp(law.sigma * rng.standard_normal(n))).clip(max=law.cap)
    else:
        brightness = rng.uniform(law.low, law.high, n)
    return Streaks(
        x=rng.uniform(0, box.width, n) - box.margin,
        y=rng.uniform(0, box.height, n) - box.margin,
        length=rng.uniform(*layer.length, n),
        tilt=rng.normal(0, preset.streak_angle, n),
        brightness=brightness,
    )
