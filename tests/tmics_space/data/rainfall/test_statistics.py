"""Statistics of rain, and the calibration of the presets by them."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from nas.errors import ConfigError
from tmics_space.data.clips import fit
from tmics_space.data.frames import iterate_frames
from tmics_space.data.rainfall import rain, rain_statistics


def test_statistics_by_hand() -> None:
    clean = torch.full((2, 3, 10, 10), 100, dtype=torch.uint8)
    rainy = clean.clone()
    rainy[0, :, :2, :5] += 20
    rainy[0, :, 2, :5] += 40
    rainy[1, :, 0, 0] += 10  # too faint to cover
    rainy[1, 0, 5, 5] += 60  # 20 over the three colours
    found = rain_statistics(rainy, clean)
    assert found.mean == pytest.approx((10 * 20 + 5 * 40 + 10 + 20) / 200)
    assert found.coverage == pytest.approx(16 / 200)
    assert found.brightness_mean == pytest.approx((11 * 20 + 5 * 40) / 16)
    assert (found.brightness_median, found.brightness_p95) == (20, 40)
    grey = (65.481 + 128.553 + 24.966) / 255
    squares = ((10 * 400 + 5 * 1600) * grey**2 / 100, (100 * grey**2 + (60 * 65.481 / 255) ** 2) / 100)
    assert found.psnr_y == pytest.approx(np.mean([10 * np.log10(255**2 / s) for s in squares]))


def test_statistics_without_rain() -> None:
    clip = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    assert rain_statistics(clip, clip) == (0, 0, 0, 0, 0, float("inf"))
    with pytest.raises(ConfigError, match="must have one shape, got"):
        rain_statistics(clip, clip[..., :2])


@functools.cache
def street(root: Path, name: str) -> Tensor:
    """Two frames of a real clip, as 640x480: scaled to cover it and cut, or stretched where it is smaller."""
    stream = iterate_frames(root / "clean" / f"{name}.mp4")
    frames = torch.stack([fit(frame, (480, 640)) for frame, _ in zip(stream, range(16), strict=False)][::8])
    if frames.shape[-2:] != (480, 640):
        scaled = torch.nn.functional.interpolate(frames.float(), (480, 640), mode="bicubic", align_corners=False)
        frames = scaled.round().clamp(0, 255).to(torch.uint8)
    return frames


STREETS = ("gsam2_car", "davis_bmx-trees", "traffic_camera")
"""Outdoors by day, of middling brightness (means of 115, 95 and 121); bright sky would hide half of the rain."""


@functools.cache
def on_streets(root: Path, preset: str) -> tuple[Tensor, Tensor]:
    clean = torch.cat([street(root, name) for name in STREETS])
    return rain(clean, preset, 0), clean


def shapes(rainy: Tensor, clean: Tensor) -> tuple[float, list[float], list[float]]:
    """Streaks per frame of 8 px or more, quantiles 10, 50, 90 % of their lengths, and 50, 90 % of their widths, px.

    A streak is a connected region above 15; its length that of the bar with its second moments, area over it its width.
    """
    residual = (rainy.double() - clean.double()).mean(1).numpy()
    lengths, widths = [], []
    for mask in residual > 15:
        regions, _ = ndimage.label(mask, np.ones((3, 3)))
        for index, box in enumerate(ndimage.find_objects(regions), 1):
            points = np.argwhere(regions[box] == index)
            if len(points) >= 8:
                spread = np.linalg.eigvalsh(np.cov(points.T, ddof=0) + np.eye(2) / 12).max()
                lengths.append(np.sqrt(12 * spread))
                widths.append(len(points) / lengths[-1])
    quantiles = np.quantile(lengths, (0.1, 0.5, 0.9)), np.quantile(widths, (0.5, 0.9))
    return len(lengths) / len(residual), *(list(each) for each in quantiles)


def test_point_14_ntu_matches_the_measured_statistics(data_root: Path) -> None:
    rainy, clean = on_streets(data_root, "ntu")
    pixels = rain_statistics(rainy, clean)
    count, lengths, widths = shapes(rainy, clean)
    found = [*pixels[:5], count, *lengths, *widths]
    # of one NTURain scene of 30 frames: mean, coverage, brightness; streaks a frame; length and width
    measured = [2.1, 0.048, 34.6, 27, 79, 467, 6.8, 13.8, 31.2, 1.9, 3.1]
    np.testing.assert_allclose(found, measured, rtol=0.25)
    assert pixels.psnr_y == pytest.approx(30.45, abs=0.7)


def test_ntu_streaks_do_not_return(data_root: Path) -> None:
    clean = street(data_root, "davis_bmx-trees")
    masks = ((rain(clean, "ntu", 0).int() - clean.int()).float().mean(1) > 15).flatten(1).float()
    assert torch.corrcoef(masks)[0, 1:].abs().max() < 0.1  # measured: .053


@pytest.mark.parametrize(
    ("preset", "decibels", "tolerance"), [("light25", 24.0, 0.5), ("complex25", 14.6, 0.7), ("complex25-occl", 15, 1)]
)
def test_point_14_synthetic_sets_match_their_noise(
    data_root: Path, preset: str, decibels: float, tolerance: float
) -> None:
    assert rain_statistics(*on_streets(data_root, preset)).psnr_y == pytest.approx(decibels, abs=tolerance)
