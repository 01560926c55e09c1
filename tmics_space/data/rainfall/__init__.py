"""Synthetic rain on clean clips, a function of a seed.

`presets` describes kinds of rain, `mix` draws one for each window, `streaks` draws the streaks of a layer, and
`composition` lays them over the frames. `statistics` and `shape` measure rain. Start with `presets`.
"""

from tmics_space.data.rainfall.composition import rain, rain_frames
from tmics_space.data.rainfall.mix import DrawnRain, RainMix, WeightedPreset, jittered
from tmics_space.data.rainfall.presets import RAIN_PRESETS, Layer, LogNormal, RainPreset, Uniform, find_preset
from tmics_space.data.rainfall.shape import RainShape, coverage_by_brightness, rain_shape
from tmics_space.data.rainfall.statistics import RainStatistics, rain_statistics

__all__ = [
    "RAIN_PRESETS",
    "DrawnRain",
    "Layer",
    "LogNormal",
    "RainMix",
    "RainPreset",
    "RainShape",
    "RainStatistics",
    "Uniform",
    "WeightedPreset",
    "coverage_by_brightness",
    "find_preset",
    "jittered",
    "rain",
    "rain_frames",
    "rain_shape",
    "rain_statistics",
]
