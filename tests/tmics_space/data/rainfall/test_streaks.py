"""Where streaks are, and how they are drawn."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest

from tmics_space.data.rainfall.presets import COMPLEX25, Layer, RainPreset, Uniform
from tmics_space.data.rainfall.streaks import Streaks, draw, fall

LAYER = Layer(density=3000, length=(20, 20), width=2, brightness=Uniform(0.5, 0.5))
UPRIGHT = RainPreset((LAYER,), composition="additive", clip_angle=0, streak_angle=0, gust=0)


def streaks(*rows: tuple[float, float, float, float, float]) -> Streaks:
    return Streaks(*np.array(rows).T)


def by_definition(drops: Streaks, angle: float, fwhm: float, height: int, width: int) -> npt.NDArray[np.float64]:
    """The distance of every pixel to every segment."""
    pixels = np.stack(np.mgrid[:height, :width][::-1], axis=-1)
    canvas = np.zeros((height, width))
    for x, y, length, tilt, brightness in zip(*drops, strict=True):
        theta = math.radians(angle + tilt)
        end = np.array([math.sin(theta), math.cos(theta)]) * length / 2
        offset = pixels - [x, y]
        along = np.clip(offset @ end / (end @ end), -1, 1)
        distance = np.linalg.norm(offset - along[..., None] * end, axis=-1)
        canvas = np.maximum(canvas, brightness * 0.5 ** ((2 * distance / fwhm) ** 2))
    return canvas


@pytest.mark.parametrize("angle", [-50.0, -20.0, 0.0, 7.0, 50.0])
def test_drawing_equals_the_definition(angle: float) -> None:
    rng = np.random.default_rng(0)
    drops = Streaks(
        x=rng.uniform(-5, 45, 12),
        y=rng.uniform(-5, 35, 12),
        length=rng.uniform(3, 25, 12),
        tilt=rng.normal(0, 5, 12),
        brightness=rng.uniform(0.2, 0.9, 12),
    )
    for fwhm in (1.5, 4.0):
        drawn = draw(drops, angle, fwhm, 30, 40)
        assert drawn.dtype == np.float32
        np.testing.assert_allclose(drawn, by_definition(drops, angle, fwhm, 30, 40), atol=0.02)


def test_width_is_that_of_half_brightness() -> None:
    drawn = draw(streaks((20, 20, 100, 0, 0.8)), 0, 6, 41, 41)
    np.testing.assert_allclose(drawn[:, [17, 20, 23]], [[0.4, 0.8, 0.4]] * 41, rtol=1e-5)


def test_a_positive_angle_falls_to_the_right() -> None:
    drawn = draw(streaks((20, 20, 30, 0, 1)), 30, 2, 41, 41)
    assert drawn[10].argmax() < 20 < drawn[30].argmax()


def test_streaks_outside_the_frame_leave_it_dark() -> None:
    assert draw(streaks((-50, 20, 10, 0, 1), (20, 90, 10, 0, 1)), 0, 2, 41, 41).max() == 0
    assert draw(Streaks(*np.empty((5, 0))), 0, 2, 41, 41).shape == (41, 41)


def test_a_living_streak_moves_by_its_length_over_the_shutter() -> None:
    preset = RainPreset((LAYER,), "additive", coherence=1, shutter=0.5, clip_angle=0, streak_angle=0, gust=0)
    (first,), (second,) = itertools.islice(fall(preset, 0, 200, 60), 2)
    assert first.max() > 0.4
    np.testing.assert_allclose(second[40:], first[:-40], atol=1e-5)


def test_the_number_of_streaks_does_not_drift() -> None:
    for coherence in (0.0, 0.5, 1.0):
        preset = RainPreset((LAYER,), "additive", coherence=coherence, clip_angle=0, streak_angle=0, gust=0)
        light = [maps[0].mean() for maps in itertools.islice(fall(preset, 1, 300, 400), 20)]
        assert np.mean(light[-5:]) == pytest.approx(np.mean(light[:5]), rel=0.1)


def test_the_density_is_per_million_pixels() -> None:
    # thin, short, dim enough of overlap: the light of one capsule times their number
    layer = Layer(density=300, length=(10, 10), width=2, brightness=Uniform(0.5, 0.5))
    preset = RainPreset((layer,), "additive", streak_angle=0, clip_angle=0, gust=0)
    one = draw(streaks((50, 50, 10, 0, 0.5)), 0, 2, 101, 101).sum()
    light = np.mean([maps[0].sum() for maps in itertools.islice(fall(preset, 0, 400, 500), 30)])
    assert light == pytest.approx(300 * 0.2 * one, rel=0.05)


def test_borders_see_as_much_rain_as_the_middle() -> None:
    total = sum(maps[2] for maps in itertools.islice(fall(COMPLEX25, 0, 120, 160), 60))
    middle = total[30:90, 40:120].mean()
    for strip in (total[:10], total[-10:], total[:, :10], total[:, -10:]):
        assert strip.mean() == pytest.approx(middle, rel=0.3)


def test_gusts_turn_the_rain_slowly() -> None:
    def lean(field: npt.NDArray[np.float32]) -> float:
        down, right = np.gradient(field.astype(float))
        return math.degrees(0.5 * math.atan2(-2 * (down * right).sum(), (right**2).sum() - (down**2).sum()))

    calm = [lean(maps[0]) for maps in itertools.islice(fall(UPRIGHT, 0, 200, 200), 8)]
    windy = RainPreset((LAYER,), "additive", clip_angle=0, streak_angle=0, gust=2)
    angles = [lean(maps[0]) for maps in itertools.islice(fall(windy, 0, 200, 200), 40)]
    assert np.abs(calm).max() < 1
    assert np.std(angles) > 2
    assert np.abs(np.diff(angles)).max() < 3 + 1.5
