"""Rain over clean frames: streaks meet the background, a veil falls over both, and the sum is stored in 8 bits."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from nas.errors import ConfigError
from tmics_space.data.rainfall.presets import RainPreset, find_preset
from tmics_space.data.rainfall.streaks import Map, fall

_SPARKLE_SIGMA = (0.02, 0.05)


def rain(clip: Tensor, preset: str | RainPreset, seed: int) -> Tensor:
    """The clip with rain: (frames, 3, height, width) uint8 to the same, on the same device.

    Equal arguments give equal bytes, and a frame does not depend on those after it. Raises `UnknownNameError` for an
    unknown preset, `ConfigError` for another shape or dtype or a negative seed.
    """
    if clip.dtype != torch.uint8 or clip.ndim != 4 or clip.shape[1] != 3 or not len(clip):
        found = f"{tuple(clip.shape)} {clip.dtype}"
        raise ConfigError(f"rain falls on a clip (frames, 3, height, width) of torch.uint8, found {found}")
    return torch.stack(list(rain_frames(clip, preset, seed)))


def rain_frames(frames: Iterable[Tensor], preset: str | RainPreset, seed: int) -> Iterator[Tensor]:
    """`rain` frame by frame, (3, height, width) uint8 each, in constant memory."""
    kind = find_preset(preset)
    if seed < 0:
        raise ConfigError(f"the seed of the rain is {seed}; expected 0 or more")
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
    """A rainy frame (3, height, width) in [0, 1] from a clean one and its layers' brightness (height, width)."""
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
    """Isolated specks, 1 to 3 px tall, lighter or darker than what they lie on: (height, width)."""
    specks = np.zeros((height, width), dtype=np.float32)
    n = rng.poisson(density * 1e-6 * height * width)
    y, x = rng.integers(height, size=n), rng.integers(width, size=n)
    value, tall = rng.normal(0, rng.uniform(*_SPARKLE_SIGMA), n), rng.integers(1, 4, size=n)
    for below in range(3):
        here = (tall > below) & (y + below < height)
        specks[y[here] + below, x[here]] = value[here]
    return specks
