"""Kinds of rain as data: layers of streaks, how they meet the background, and the veil over both."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from nas.registry import Kind, NonNegative, Positive

Part: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]


RAIN_PRESETS = Kind(
    "rain preset", "tmics.rain_presets", expected="a RainPreset", accepts=lambda value: isinstance(value, RainPreset)
)
"""Kinds of rain, for `rain` in the task's data: objects `RainPreset`, offered by entry points or `RAIN_PRESETS.add`."""


class Uniform(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="uniform"):
    """Streak brightness, of 1, uniform between two bounds."""

    low: Part
    high: Part


class LogNormal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="lognormal"):
    """Streak brightness, of 1, log-normal with a median and a spread (of the logarithm), capped."""

    median: Positive
    sigma: NonNegative
    cap: Part


class Layer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Streaks at one depth: how many per million pixels, how long (uniform, px), how wide (px at half brightness)."""

    density: NonNegative
    length: tuple[Positive, Positive]
    width: Positive
    brightness: Uniform | LogNormal
    speed: Positive | None = None
    """How far all streaks of the layer fall from frame to frame, in px, in the direction of the rain. None: each falls
    by its length divided by the shutter."""


class RainPreset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind of rain. Intensities are in [0, 1], angles are in degrees from the vertical."""

    layers: Annotated[tuple[Layer, ...], msgspec.Meta(min_length=1)]
    """From far to near."""
    composition: Literal["additive", "screen", "alpha", "occlusion"]
    """With the background B, the streaks S, the airlight A and the nearest layer m: `additive` is B + S, `screen` is
    1 - (1 - B)(1 - S), `alpha` is B + S (A - B), `occlusion` is (1 - m)(B + S) + m A."""
    airlight: Part = 0.8
    transmission: Part = 1.0
    """The t of the veil t O + (1 - t) A over the composed frame O; 1 is no veil."""
    sparkle: NonNegative = 0.0
    """Number of isolated specks of 1 to 3 px per million pixels."""
    coherence: Part = 0.0
    """Share of the streaks that move on to the next frame; new streaks replace the rest."""
    shutter: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    """The length of a streak divided by its motion per frame: the share of the time in which the shutter is open.
    Layers with a speed ignore it."""
    clip_angle: NonNegative = 2.0
    """Standard deviation of the angle of a clip."""
    streak_angle: NonNegative = 2.0
    """Standard deviation of the angle of a streak around that of the clip."""
    gust: NonNegative = 0.5
    """Standard deviation of the random step per frame of the clip's angle."""


def _layers(
    densities: tuple[float, float, float],
    lengths: tuple[tuple[float, float], ...],
    widths: tuple[float, float, float],
    brightness: Uniform | LogNormal,
    speed: float | None = None,
) -> tuple[Layer, ...]:
    rows = zip(densities, lengths, widths, strict=True)
    return tuple(Layer(density, length, width, brightness, speed) for density, length, width in rows)


_COMPLEX = _layers((1600, 800, 300), ((10, 30), (20, 60), (40, 120)), (1.5, 2.5, 4), Uniform(0.3, 0.8))

# Densities and brightness were calibrated on real 640x480 frames: NTU by the streak statistics of an NTURain
# scene, the other two by the PSNR of the rainy frames of the data sets they imitate (23.7 and 14.7 dB).
NTU = RainPreset(
    _layers((1955, 805, 173), ((3, 11), (10, 26), (22, 50)), (1.5, 1.8, 2.4), LogNormal(0.17, 0.65, 0.95)),
    composition="screen",
)
LIGHT25 = RainPreset(
    _layers((800, 480, 160), ((8, 20), (15, 40), (30, 80)), (1.5, 2, 3), Uniform(0.15, 0.5)), composition="additive"
)
COMPLEX25 = RainPreset(_COMPLEX, composition="additive", transmission=0.85)
COMPLEX25_OCCL = RainPreset(_COMPLEX, composition="occlusion", transmission=0.75, sparkle=2000)

# Calibrated by the statistics of filmed rain that tests/tmics_space/data/rainfall/test_shape.py lists. Two filmed clips
# fall by 18 and 44 px a frame; 30 lies between.
FILMED = RainPreset(
    _layers((3150, 1400, 380), ((5, 18), (14, 40), (32, 84)), (1.1, 1.25, 1.5), LogNormal(0.13, 0.95, 0.95), 30),
    composition="alpha",
    airlight=0.785,
    coherence=0.33,
    clip_angle=8.5,
    streak_angle=1.5,
    gust=0.3,
)
# For validation and tests of networks that train on FILMED: about as strong, but wider, slower, at steeper angles.
FILMED_OTHER = RainPreset(
    (
        Layer(1450, (8, 24), 1.6, Uniform(0.06, 0.45), speed=13),
        Layer(480, (20, 56), 2.1, Uniform(0.06, 0.45), speed=19),
    ),
    composition="alpha",
    airlight=0.9,
    coherence=0.55,
    clip_angle=14,
    streak_angle=3,
    gust=1,
)


def find_preset(preset: str | RainPreset) -> RainPreset:
    """Return the preset of that name, or the preset itself; raises `UnknownNameError`."""
    if isinstance(preset, RainPreset):
        return preset
    found: RainPreset = RAIN_PRESETS.find(preset)
    return found
