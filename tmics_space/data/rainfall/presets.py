"""Kinds of rain as data: layers of streaks, how they meet the background, and the veil over both."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from nas.errors import UnknownNameError

Part: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
Positive: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
Number: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]


class Uniform(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="uniform"):
    """Streak brightness, of 1, uniform between two bounds."""

    low: Part
    high: Part


class LogNormal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="lognormal"):
    """Streak brightness, of 1, log-normal with a median and a spread (of the logarithm), capped."""

    median: Positive
    sigma: Number
    cap: Part


class Layer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Streaks at one depth: how many per million pixels, how long (uniform, px), how wide (px at half brightness)."""

    density: Number
    length: tuple[Positive, Positive]
    width: Positive
    brightness: Uniform | LogNormal


class RainPreset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind of rain. Colours are of 1, angles in degrees from the vertical, layers run from far to near.

    composition: with B the background, S the streaks, A the airlight and m the nearest layer,
        additive B + S; screen 1 - (1 - B)(1 - S); alpha B + S (A - B); occlusion (1 - m)(B + S) + m A.
    transmission: the veil `t O + (1 - t) A` over the composed frame; 1 is none.
    sparkle: isolated specks of 1 to 3 px per million pixels.
    coherence: the part of the streaks that lives on to the next frame, moved; the rest is drawn anew.
    shutter: the part of the time between two frames the shutter is open: a streak's length over its way per frame.
    clip_angle, streak_angle: standard deviation of the angle of a clip, and of a streak around it.
    gust: standard deviation of the random step per frame of the clip's angle.
    """

    layers: Annotated[tuple[Layer, ...], msgspec.Meta(min_length=1)]
    composition: Literal["additive", "screen", "alpha", "occlusion"]
    airlight: Part = 0.8
    transmission: Part = 1.0
    sparkle: Number = 0.0
    coherence: Part = 0.0
    shutter: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    clip_angle: Number = 2.0
    streak_angle: Number = 2.0
    gust: Number = 0.5


def _layers(
    densities: tuple[float, float, float],
    lengths: tuple[tuple[float, float], ...],
    widths: tuple[float, float, float],
    brightness: Uniform | LogNormal,
) -> tuple[Layer, ...]:
    rows = zip(densities, lengths, widths, strict=True)
    return tuple(Layer(density, length, width, brightness) for density, length, width in rows)


_COMPLEX = _layers((1600, 800, 300), ((10, 30), (20, 60), (40, 120)), (1.5, 2.5, 4), Uniform(0.3, 0.8))

# Densities and brightness were calibrated on real 640x480 frames: `ntu` by the streak statistics of an NTURain
# scene, the other two by the PSNR of the rainy frames of the data sets they imitate (23.7 and 14.7 dB).
PRESETS: dict[str, RainPreset] = {
    "ntu": RainPreset(
        _layers((1955, 805, 173), ((3, 11), (10, 26), (22, 50)), (1.5, 1.8, 2.4), LogNormal(0.17, 0.65, 0.95)),
        composition="screen",
    ),
    "light25": RainPreset(
        _layers((800, 480, 160), ((8, 20), (15, 40), (30, 80)), (1.5, 2, 3), Uniform(0.15, 0.5)),
        composition="additive",
    ),
    "complex25": RainPreset(_COMPLEX, composition="additive", transmission=0.85),
    "complex25-occl": RainPreset(_COMPLEX, composition="occlusion", transmission=0.75, sparkle=2000),
}


def find_preset(preset: str | RainPreset) -> RainPreset:
    """The preset of that name, or the preset itself; raises `UnknownNameError`."""
    if isinstance(preset, RainPreset):
        return preset
    if preset not in PRESETS:
        raise UnknownNameError("rain preset", preset, PRESETS)
    return PRESETS[preset]
