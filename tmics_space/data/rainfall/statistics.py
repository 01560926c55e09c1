"""What rain looks like in numbers: the pixel statistics that the presets were calibrated by."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from nas.errors import ConfigError
from tmics_space.metrics.image import luminance, mean_psnr, psnr

_VISIBLE = 15.0  # of 255: what counts as covered by a streak


class RainStatistics(NamedTuple):
    """Over all frames of a clip; brightnesses in steps of 255."""

    mean: float
    """of rainy - clean, averaged over colours"""
    coverage: float
    """part of the pixels where it is above 15"""
    brightness_mean: float
    """of those pixels"""
    brightness_median: float
    brightness_p95: float
    psnr_y: float
    """dB, on MATLAB's luminance without rounding, mean over the frames with rain"""


def statistics(rainy: Tensor, clean: Tensor) -> RainStatistics:
    """Measure rain, (frames, 3, height, width) uint8 both. Raises `ConfigError` where the shapes differ."""
    if rainy.shape != clean.shape:
        raise ConfigError(f"rainy and clean differ in shape: {tuple(rainy.shape)} and {tuple(clean.shape)}")
    residual = (rainy.double() - clean.double()).mean(1)
    visible = residual[residual > _VISIBLE].sort().values
    luminances = (luminance(clip.double() / 255) for clip in (rainy, clean))
    return RainStatistics(
        mean=float(residual.mean()),
        coverage=len(visible) / residual.numel(),
        brightness_mean=float(visible.mean()) if len(visible) else 0.0,
        brightness_median=_quantile(visible, 0.5),
        brightness_p95=_quantile(visible, 0.95),
        psnr_y=mean_psnr(psnr(*luminances).tolist()),
    )


def _quantile(ascending: Tensor, q: float) -> float:
    return float(ascending[round(q * (len(ascending) - 1))]) if len(ascending) else 0.0
