"""Shape and motion of rain, measured; and presets that are calibrated by them."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from nas.errors import ConfigError
from tmics_space.data import moving_texture
from tmics_space.data.clips import fit
from tmics_space.data.frames import iterate_frames
from tmics_space.data.rainfall import (
    RAIN_PRESETS,
    Layer,
    RainPreset,
    Uniform,
    coverage_by_brightness,
    rain,
    rain_shape,
    rain_statistics,
)


def planted(
    length: int, slope: float, fall: tuple[int, int], lives: float, frames: int = 3, size: int = 200
) -> tuple[Tensor, Tensor]:
    """Streaks 1 px wide, of one length and slope; a share of them moves right and down by `fall` in the next frame."""
    rng = np.random.default_rng(0)
    clean = torch.full((frames, 3, size, size), 40, dtype=torch.uint8)
    rainy = clean.clone()
    places = rng.integers(-64, size, (240, 2))
    for frame in rainy:
        for y, x in places:
            for step in range(length):
                row, column = y + step, x + round(slope * step)
                if 0 <= row < size and 0 <= column < size:
                    frame[:, row, column] = 140
        renewed = rng.random(len(places)) >= lives
        places = places + np.array([fall[1], fall[0]])
        places[renewed] = rng.integers(-64, size, (int(renewed.sum()), 2))
    return rainy, clean


@pytest.mark.parametrize("length", [12, 24, 48])
def test_upright_streaks_have_the_correlations_of_their_length(length: int) -> None:
    found = rain_shape(*planted(length, 0, (0, 0), 0))
    expected = [max(0, 1 - lag / length) for lag in (8, 16)]
    assert found.along == pytest.approx(expected, abs=0.08)
    assert found.across == pytest.approx(0, abs=0.08)
    assert abs(found.angle) < 1e-9 or length == 12
    assert max(found.still, found.falling) < 0.15


@pytest.mark.parametrize(("slope", "fall"), [(0.25, (5, 20)), (-0.5, (-9, 18)), (0.0, (0, 44))])
@pytest.mark.parametrize("lives", [0.3, 1.0])
def test_motion_is_found_with_its_sign(slope: float, fall: tuple[int, int], lives: float) -> None:
    found = rain_shape(*planted(24, slope, fall, lives))
    assert found.fall == fall
    assert found.falling == pytest.approx(lives, abs=0.12)
    assert found.falling > found.still + 0.05
    assert found.angle == pytest.approx(math.degrees(math.atan(slope)), abs=3)


def test_the_correlation_of_one_step_across_is_that_of_a_gaussian() -> None:
    """Of a cross-section with the deviation s, sampled at pixels: exp(-1 / 4 s^2)."""
    for width in (1.2, 2.0):
        layer = Layer(1000, (60, 60), width, Uniform(0.5, 0.5))
        upright = RainPreset((layer,), "additive", clip_angle=0, streak_angle=0, gust=0)
        clean = torch.full((3, 3, 160, 200), 20, dtype=torch.uint8)
        deviation = width / math.sqrt(8 * math.log(2))
        found = rain_shape(rain(clean, upright, 0), clean)
        assert found.across == pytest.approx(math.exp(-1 / (4 * deviation**2)), abs=0.06)


def test_one_frame_has_no_motion_and_small_frames_no_shape() -> None:
    rainy, clean = planted(24, 0, (0, 20), 1, frames=1)
    assert rain_shape(rainy, clean)[3:] == (0, 0, (0, 0))
    with pytest.raises(ConfigError, match="larger than 32 px, got 200x30"):
        rain_shape(rainy[:, :, :30], clean[:, :, :30])
    with pytest.raises(ConfigError, match="must have one shape, got"):
        rain_shape(rainy, clean[..., 1:])


def test_coverage_by_brightness_by_hand() -> None:
    clean = torch.tensor([10, 70, 130, 200], dtype=torch.uint8).repeat_interleave(10).expand(1, 3, 5, 40)
    rainy = clean.clone()
    rainy[:, :, 0, :10] += 16
    rainy[:, :, 0, 10:15] += 16
    rainy[:, :, 0, 20:] += 15  # too faint
    assert coverage_by_brightness(rainy, clean) == pytest.approx((0.2, 0.1, 0, 0))
    assert math.isnan(coverage_by_brightness(rainy[..., :10], clean[..., :10])[3])


def test_a_layer_with_a_speed_falls_by_it_whatever_the_length() -> None:
    layers = tuple(Layer(400, length, 1.5, Uniform(0.4, 0.6), speed=21) for length in ((8, 12), (30, 60)))
    clean = torch.full((3, 3, 160, 200), 20, dtype=torch.uint8)
    for angle, seed in ((0, 0), (10, 1)):
        preset = RainPreset(layers, "additive", coherence=0.6, clip_angle=angle, streak_angle=2, gust=0)
        found = rain_shape(rain(clean, preset, seed), clean)
        assert math.hypot(*found.fall) == pytest.approx(21, abs=1.5)
        assert found.falling == pytest.approx(0.6, abs=0.1)
        assert math.degrees(math.atan2(*found.fall)) == pytest.approx(found.angle, abs=5)


@pytest.mark.parametrize(
    ("preset", "digest"),
    [
        ("ntu", "783a5e6eaae0ba6e"),
        ("light25", "7a7505113a7b7b58"),
        ("complex25", "24d9824abcfc8e75"),
        ("complex25-occl", "402887e334c2c214"),
    ],
)
def test_older_presets_keep_their_bytes(preset: str, digest: str) -> None:
    rainy = rain(moving_texture(3, 48, 64), preset, 3)
    assert hashlib.sha256(rainy.numpy().tobytes()).hexdigest()[:16] == digest


def test_the_filmed_presets_are_far_apart() -> None:
    """The presets themselves: with jitter .3, ranges around `filmed` reach the speeds and widths of the other."""
    filmed, other = (RAIN_PRESETS.find(name) for name in ("filmed", "filmed-other"))
    assert min(layer.width for layer in other.layers) > max(layer.width for layer in filmed.layers)
    speeds = [{layer.speed or 0 for layer in preset.layers} for preset in (filmed, other)]
    assert min(speeds[0]) > 1.5 * max(speeds[1])
    assert other.clip_angle > 1.5 * filmed.clip_angle
    assert msgspec.structs.replace(filmed, airlight=other.airlight) != filmed


STREETS = ("gsam2_car", "davis_bmx-trees", "traffic_camera")


def test_filmed_matches_the_measured_statistics(data_root: Path) -> None:
    """Of filmed clips, each within 25 % but the two last ones: what `tools/rain_report.py` prints."""
    rows, still = [], []
    for seed, name in enumerate(STREETS, 1):
        stream = iterate_frames(data_root / "clean" / f"{name}.mp4")
        clean = torch.stack([fit(frame, (480, 640)) for frame, _ in zip(stream, range(3), strict=False)])
        rainy = rain(clean, "filmed", seed)
        shape = rain_shape(rainy, clean)
        dark = coverage_by_brightness(rainy, clean)
        rows.append([*rain_statistics(rainy, clean)[:5], shape.across, *shape.along, shape.falling, *dark])
        still.append(shape.still)
    found = np.nanmean(rows, 0)
    # mean, coverage, brightness (mean, median, 95 %); across, along; with the next frame; coverage from dark to bright
    measured = [2.1, 0.048, 34.6, 27, 79, 0.41, 0.54, 0.31, 0.255, 0.077, 0.045, 0.015]
    np.testing.assert_allclose(found[:-1], measured, rtol=0.25)
    assert found[-1] < 0.002  # measured .001, which no pixel of the preset reaches
    assert np.mean(still) < found[8] / 3  # at the same place; measured .05, the preset has .07
