"""Scores of restored clips: per image, over time, and the field's named protocols."""

from __future__ import annotations

from tmics_space.metrics.image import luminance, mean_psnr, psnr, ssim
from tmics_space.metrics.interval import Interval, interval
from tmics_space.metrics.protocol import ClipScores, Protocol, evaluate_clip, protocol
from tmics_space.metrics.temporal import TemporalScore, tof, warping_error

__all__ = [
    "ClipScores",
    "Interval",
    "Protocol",
    "TemporalScore",
    "evaluate_clip",
    "interval",
    "luminance",
    "mean_psnr",
    "protocol",
    "psnr",
    "ssim",
    "tof",
    "warping_error",
]
