"""Pixel statistics of rain, by which the presets are calibrated."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from tmics_space.data.rainfall.shape import VISIBLE, rain_of
from tmics_space.metrics.image import luminance, mean_psnr, psnr


class RainStatistics(NamedTuple):
    """Statistics over all frames of a clip. The unit of brightness is 1/255."""

    mean: float
    """Mean of rainy - clean, averaged over colours."""
    coverage: float
    """Share of the pixels at which this difference is above 15."""
    brightness_mean: float
    """Mean of the difference at these pixels."""
    brightness_median: float
    """Median of the difference at these pixels."""
    brightness_p95: float
    """95th percentile of the difference at these pixels."""
    psnr_y: float
    """PSNR in dB, on MATLAB's luminance without rounding, mean over the frames with rain."""


def rain_statistics(rainy: Tensor, clean: Tensor) -> RainStatistics:
    """Measure rain.

    Args:
        rainy: frames, `(frames, 3, height, width)` uint8.
        clean: frames of the same shape.

    Raises:
        ConfigError: the shapes differ.
    """
    residual = rain_of(rainy, clean).double()
    visible = residual[residual > VISIBLE].sort().values
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
