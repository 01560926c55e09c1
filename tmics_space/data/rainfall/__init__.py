"""A generator of rain for clean clips, deterministic in a seed."""

from tmics_space.data.rainfall.compose import rain, rain_frames
from tmics_space.data.rainfall.presets import PRESETS, Layer, LogNormal, RainPreset, Uniform, find_preset
from tmics_space.data.rainfall.statistics import RainStatistics, statistics

__all__ = [
    "PRESETS",
    "Layer",
    "LogNormal",
    "RainPreset",
    "RainStatistics",
    "Uniform",
    "find_preset",
    "rain",
    "rain_frames",
    "statistics",
]
