"""Composition of rain and clean frames: streaks and background are combined, then a veil is added."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from nas.errors import ConfigError
from tmics_space.data.mapped import stacked
from tmics_space.data.rainfall.presets import RainPreset, find_preset
from tmics_space.data.rainfall.streaks import Map, fall

_SPARKLE_SIGMA = (0.02, 0.05)


def rain(clip: Tensor, preset: str | RainPreset, seed: int) -> Tensor:
    """Add rain to a clip. Equal arguments give equal bytes, and a frame does not depend on those after it.

    Args:
        clip: frames, `(frames, 3, height, width)` uint8.
        preset: kind of rain, or its name.
        seed: of the rain, at least 0.

    Returns:
        The rainy clip, of the same shape, type and device.

    Raises:
        UnknownNameError: no preset has this name.
        ConfigError: the clip has another shape or type, or the seed is negative.
    """
    if clip.dtype != torch.uint8 or clip.ndim != 4 or clip.shape[1] != 3 or not len(clip):
        found = f"{tuple(clip.shape)} {clip.dtype}"
        raise ConfigError(f"a clip for rain must be (frames, 3, height, width) torch.uint8, got {found}")
    return stacked(rain_frames(clip, preset, seed))


def rain_frames(frames: Iterable[Tensor], preset: str | RainPreset, seed: int) -> Iterator[Tensor]:
    """Add rain frame by frame, in constant memory.

    Args:
        frames: `(3, height, width)` uint8 each.
        preset: kind of rain, or its name.
        seed: of the rain, at least 0.

    Returns:
        An iterator over the frames that `rain` returns.

    Raises:
        UnknownNameError: no preset has this name.
        ConfigError: the seed is negative.
    """
    kind = find_preset(preset)
    if seed < 0:
        raise ConfigError(f"the seed of the rain must be at least 0, got {seed}")
    return _rain_frames(iter(frames), kind, seed)


def _rain_frames(frames: Iterator[Tensor], preset: RainPreset, seed: int) -> Iterator[Tensor]:
    first = next(frames, None)
    if first is None:
        return
    falling = fall(preset, seed, first.shape[-2], first.shape[-1])
    for index, frame in enumerate(itertools.chain([first], frames)):
        background = frame.cpu().numpy().astype(np.float32) / np.float32(255)
        rng = np.random.default_rng([seed, index + 1, 1])
        rainy = np.rint(compose(background, next(falling), preset, rng) * 255)
        yield torch.from_numpy(rainy.astype(np.uint8)).to(frame.device)


def compose(background: Map, layers: Sequence[Map], preset: RainPreset, rng: np.random.Generator) -> Map:
    """Compose one rainy frame.

    Args:
        background: the clean frame, `(3, height, width)` in [0, 1].
        layers: brightness of the streaks of each layer, from far to near, `(height, width)` each.
        preset: kind of rain.
        rng: the source of random numbers.

    Returns:
        The rainy frame, `(3, height, width)` in [0, 1].
    """
    one, airlight, t = np.float32(1), np.float32(preset.airlight), np.float32(preset.transmission)
    *far, near = layers
    streaks: Map = reduce(np.maximum, far, np.zeros_like(near) if preset.composition == "occlusion" else near)
    match preset.composition:
        case "additive":
            frame = background + streaks
        case "screen":
            frame = background + streaks * (one - background)
        case "alpha":
            frame = background + streaks * (airlight - background)
        case "occlusion":
            frame = (one - near) * (background + streaks) + near * airlight
    frame = t * frame + (one - t) * airlight
    if preset.sparkle:
        frame = frame + _specks(preset.sparkle, near.shape[0], near.shape[1], rng)
    rainy: Map = frame.clip(0, 1)
    return rainy


def _specks(density: float, height: int, width: int, rng: np.random.Generator) -> Map:
    """Draw isolated specks, 1 to 3 px tall, lighter or darker than the background: `(height, width)`."""
    specks = np.zeros((height, width), dtype=np.float32)
    n = rng.poisson(density * 1e-6 * height * width)
    y, x = rng.integers(height, size=n), rng.integers(width, size=n)
    value, tall = rng.normal(0, rng.uniform(*_SPARKLE_SIGMA), n), rng.integers(1, 4, size=n)
    for below in range(3):
        here = (tall > below) & (y + below < height)
        specks[y[here] + below, x[here]] = value[here]
    return specks
