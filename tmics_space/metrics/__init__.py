"""Scores of restored clips: per image (`image`), over time (`temporal`), and by named protocols (`protocol`).

`clip_meter` scores several versions of a clip at once, `rain_error` separates what remains of the rain from damage.
`interval` is the confidence interval over clips, `clip_checks` compares sizes. Start with `protocol`.
"""

from __future__ import annotations

from tmics_space.metrics.image import luminance, mean_psnr, psnr, ssim
from tmics_space.metrics.interval import Interval, confidence_interval
from tmics_space.metrics.protocol import ClipScores, Protocol, evaluate_clip, find_protocol
from tmics_space.metrics.temporal import TemporalScore, tof, warping_error

__all__ = [
    "ClipScores",
    "Interval",
    "Protocol",
    "TemporalScore",
    "confidence_interval",
    "evaluate_clip",
    "find_protocol",
    "luminance",
    "mean_psnr",
    "psnr",
    "ssim",
    "tof",
    "warping_error",
]
