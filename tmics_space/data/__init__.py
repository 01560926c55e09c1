"""Clips for deraining: reading, writing, pairing, rain, camera motion, and batches of windows.

- `frames` reads clips, by `video` and `container` from video files; `writer` writes them
- `sources` are what a configuration names: films with synthetic rain, or `paired` data sets by their `layouts`;
  `matching` finds the same clip in several folders, `bundled` clips of other packages, `texture` makes clips
- `clips` holds them in memory or on disk (`stored`), in half the memory (`packed`); `shots` splits them
- `windowing` draws windows; `effects` gives each of them `rainfall`, camera `motion`, `compression` and `twins`

Start with `clips`.
"""

from tmics_space.data.bundled import BUNDLED, bundled_clip
from tmics_space.data.clips import Batch, Clip, load_clips, load_pairs, sample
from tmics_space.data.frames import FrameStream, iterate_frames, read_frames
from tmics_space.data.layouts import LAYOUTS, Layout, find_layout
from tmics_space.data.motion import CameraMotion, move_camera
from tmics_space.data.paired import PairedClip, PairedDataset, paired_dataset
from tmics_space.data.rainfall import RAIN_PRESETS, RainPreset, rain, rain_frames
from tmics_space.data.shots import find_cuts, split_at_cuts, split_clips
from tmics_space.data.texture import moving_texture
from tmics_space.data.windowing import temporal_median, window, window_indices, windows
from tmics_space.data.writer import write_frames

__all__ = [
    "BUNDLED",
    "LAYOUTS",
    "RAIN_PRESETS",
    "Batch",
    "CameraMotion",
    "Clip",
    "FrameStream",
    "Layout",
    "PairedClip",
    "PairedDataset",
    "RainPreset",
    "bundled_clip",
    "find_cuts",
    "find_layout",
    "iterate_frames",
    "load_clips",
    "load_pairs",
    "move_camera",
    "moving_texture",
    "paired_dataset",
    "rain",
    "rain_frames",
    "read_frames",
    "sample",
    "split_at_cuts",
    "split_clips",
    "temporal_median",
    "window",
    "window_indices",
    "windows",
    "write_frames",
]
