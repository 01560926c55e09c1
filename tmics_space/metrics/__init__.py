"""Scores of restored clips: per image, over time, and the field's named protocols."""

from __future__ import annotations

from tmics_space.metrics.image import luminance, psnr, ssim
from tmics_space.metrics.protocol import ClipScores, Protocol, Summary, evaluate_clip, protocol, summary
from tmics_space.metrics.temporal import TemporalScore, tof, warping_error

__all__ = [
    "ClipScores",
    "Protocol",
    "Summary",
    "TemporalScore",
    "evaluate_clip",
    "luminance",
    "protocol",
    "psnr",
    "ssim",
    "summary",
    "tof",
    "warping_error",
]
