"""Rain that is drawn: a mixture of presets, and parameters around those of the preset."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
import numpy as np

from nas.registry import Positive
from tmics_space.data.rainfall.presets import Layer, LogNormal, Part, RainPreset, Uniform, find_preset

_CALMEST = 0.95  # greatest coherence that jitter leads to: some streaks always end


class WeightedPreset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A preset of a mixture, by name or written out, and its share relative to those of the others.

    Raises:
        UnknownNameError: no preset has this name.
    """

    preset: str | RainPreset
    weight: Positive = 1.0

    def __post_init__(self) -> None:
        find_preset(self.preset)


class RainMix(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mixture of presets, one of which is drawn for each window.

    Raises:
        UnknownNameError: no preset has one of the names.
    """

    mix: Annotated[tuple[str | WeightedPreset, ...], msgspec.Meta(min_length=1)]
    """Presets: a name, or `{preset: NAME or fields, weight: 1.0}`."""
    jitter: Part = 0.0
    """How far the parameters of a window lie from the preset's (`jittered`)."""
    dry: Part = 0.0
    """Share of the windows without rain."""

    def __post_init__(self) -> None:
        self.weighted()

    def weighted(self) -> list[tuple[RainPreset, float]]:
        """Return the presets with their weights."""
        parts = [WeightedPreset(each) if isinstance(each, str) else each for each in self.mix]
        return [(find_preset(part.preset), part.weight) for part in parts]


class DrawnRain:
    """The rains of a mixture; the presets are looked up once."""

    def __init__(self, mix: RainMix) -> None:
        self._presets, weights = zip(*mix.weighted(), strict=True)
        self._shares = np.array(weights) / sum(weights)
        self._mix = mix

    def draw(self, rng: np.random.Generator) -> RainPreset | None:
        """Draw the rain of one window; None is no rain."""
        if rng.random() < self._mix.dry:
            return None
        preset = self._presets[int(rng.choice(len(self._presets), p=self._shares))]
        return jittered(preset, self._mix.jitter, rng)


def jittered(preset: RainPreset, amount: float, rng: np.random.Generator) -> RainPreset:
    """Draw a rain around a preset.

    All layers share the factors `exp(k amount u)` with u uniform in [-1, 1] and k = 2 for the density and the spread of
    the angles, 1.5 for the length, 1 for the width, 1.3 for the brightness and 2.5 for the speed: with .3 these are the
    ranges .55 to 1.8, .64 to 1.6, .74 to 1.35, .68 to 1.5 and .47 to 2.1. Coherence and airlight change by up to
    `amount` and half of it.

    Args:
        preset: the centre of the ranges.
        amount: their width, in [0, 1]; 0 returns the preset.
        rng: the source of random numbers.
    """
    if not amount:
        return preset
    u = rng.uniform(-1, 1, 8) * amount
    density, angle, length, width, brightness, speed = (
        float(math.exp(k * v)) for k, v in zip((2, 2, 1.5, 1, 1.3, 2.5), u[:6], strict=True)
    )

    def drawn(layer: Layer) -> Layer:
        low, high = layer.length
        return msgspec.structs.replace(
            layer,
            density=layer.density * density,
            length=(low * length, high * length),
            width=layer.width * width,
            brightness=_scaled(layer.brightness, brightness),
            speed=None if layer.speed is None else layer.speed * speed,
        )

    return msgspec.structs.replace(
        preset,
        layers=tuple(drawn(layer) for layer in preset.layers),
        clip_angle=preset.clip_angle * angle,
        coherence=preset.coherence and float(np.clip(preset.coherence + u[6], 0, _CALMEST)),
        airlight=float(np.clip(preset.airlight + u[7] / 2, 0, 1)),
    )


def _scaled(law: Uniform | LogNormal, factor: float) -> Uniform | LogNormal:
    if isinstance(law, LogNormal):
        return msgspec.structs.replace(law, median=law.median * factor)
    return Uniform(min(law.low * factor, 1.0), min(law.high * factor, 1.0))
