"""Clips, rainy and clean, in memory or on disk, and batches of windows drawn from them."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.errors import ConfigError
from tmics_space.data.frames import iterate_frames, read_image
from tmics_space.data.motion import CameraMotion, move_camera
from tmics_space.data.paired import PairedClip
from tmics_space.data.rainfall import RainPreset, rain
from tmics_space.data.shots import find_gaps, split_at_cuts
from tmics_space.data.stored import Frames, cached
from tmics_space.data.windows import random_view, window_indices

_ROOM = 1.5  # times the view: the picture over which a synthetic camera moves


@dataclass(frozen=True, eq=False)
class Clip:
    """One shot of a film: clean frames and rainy versions of them."""

    name: str
    film: str
    frames: Frames
    rainy: tuple[Frames, ...] = ()


class Batch(NamedTuple):
    """Windows in [0, 1], float32: rainy and their ground truth, (batch, frames, 3, height, width) both."""

    rainy: Tensor
    window: Tensor

    @property
    def clean(self) -> Tensor:
        """The ground truth of the centre frames, (batch, 3, height, width)."""
        return self.window[:, self.window.shape[1] // 2]


def load_clips(
    sources: Iterable[str | Path] | Mapping[str, str | Path],
    preset: str | RainPreset | None = None,
    seed: int = 0,
    *,
    rains: int = 1,
    size: tuple[int, int] | None = None,
    stride: int = 1,
    limit: int | None = None,
    shortest: int = 5,
    motion: CameraMotion | None = None,
) -> list[Clip]:
    """Read clean films (video files, folders of frames, photographs), cut them into shots, and let it rain on each.
    A gap in the numbers of a folder's frames is a cut.

    sources: the films, by name or to be named after their files.
    preset, seed, rains: kind of rain (none: clean clips only), its seed, and how many rainy versions of each shot. A
        shot's rain depends on its name and the seed, not on the other clips.
    size: greatest (height, width); larger frames are scaled down to cover it and cut at the centre.
    stride, limit: every how many-th frame is read, and at most how many of a film.
    shortest: shots of fewer frames are left out.
    motion: the camera moves, in views of `size`, which it needs; a photograph becomes a clip of `limit` frames.

    Raises `InvalidFileError` as `iterate_frames` does, `ConfigError` for two films of one name, or no shot at all.
    """
    if stride < 1 or (limit is not None and limit < 1) or rains < 1 or (motion is not None and size is None):
        raise ConfigError("loading clips needs stride, limit and rains of 1 or more, and a size where the camera moves")
    clips = []
    for film, source in _named(sources).items():
        wanted = None if limit is None else limit * stride
        room = size if motion is None or size is None else (int(size[0] * _ROOM), int(size[1] * _ROOM))
        stream = iterate_frames(source)
        clip = torch.stack([fit(frame, room) for frame in itertools.islice(stream, 0, wanted, stride)])
        gaps = {-(-gap // stride) for gap in stream.cuts}  # at the first frame read behind each
        shots = split_at_cuts(clip, [gap for gap in gaps if gap < len(clip)])
        for number, shot in enumerate(shots):
            name = film if len(shots) == 1 else f"{film}/{number}"
            if motion is not None and size is not None:
                count = (limit or int(motion.period)) if len(shot) == 1 else len(shot)
                shot = move_camera(shot[0] if len(shot) == 1 else shot, size, _seed(name, seed), motion, count)
            if len(shot) >= shortest:
                seeds = [_seed(name, seed, version) for version in range(rains)]
                rainy = tuple(rain(shot, preset, each) for each in seeds) if preset is not None else ()
                clips.append(Clip(name, film, shot.clone(), rainy))
    if not clips:
        raise ConfigError(f"no shot of {shortest} frames or more in the clips given")
    return clips


def load_pairs(pairs: Iterable[PairedClip], limit: int | None = None) -> list[Clip]:
    """Clips of a paired data set, at most `limit` frames of each, divided where frame numbers are missing.

    Those of video files are read into memory, images stay on disk but for those that were read last
    (`tmics_space.data.stored.CACHE` bytes of all). Raises `InvalidFileError`.
    """
    clips, read = [], None
    for pair in pairs:
        if not pair.video:
            read = read or cached(pair.rain[0])
        numbers = pair.numbers[:limit]
        bounds = [0, *find_gaps(numbers), len(numbers)]
        for part, (start, stop) in enumerate(itertools.pairwise(bounds)):
            rainy, clean = pair.load(start, stop, read or read_image)
            clips.append(Clip(pair.name if len(bounds) == 2 else f"{pair.name}/{part}", pair.film, clean, (rainy,)))
    return clips


def fit(frame: Tensor, size: tuple[int, int] | None) -> Tensor:
    """A frame (3, H, W) uint8 scaled down, never up, to cover (height, width), and cut to it at the centre."""
    if size is None:
        return frame
    scale = max(limit / side for limit, side in zip(size, frame.shape[1:], strict=True))
    if scale < 1:
        target = [max(round(side * scale), limit) for side, limit in zip(frame.shape[1:], size, strict=True)]
        frame = F.interpolate(frame[None], target, mode="bilinear", antialias=True, align_corners=False)[0]
    top, left = (max(side - limit, 0) // 2 for side, limit in zip(frame.shape[1:], size, strict=True))
    return frame[:, top : top + size[0], left : left + size[1]]


def sample(
    clips: Sequence[Clip],
    index: int,
    seed: int,
    *,
    frames: int = 5,
    crop: int = 64,
    batch: int = 2,
    before: bool = False,
    augment: bool = True,
) -> Batch:
    """Batch number `index` of random windows: a function of its arguments alone, so that a resumed run sees the same.

    Each item is a random clip, rainy version, centre frame and square of `crop` px, mirrored and played backwards at
    random if `augment`. With `before` windows begin one frame earlier; their centre is that of the last `frames`.
    Raises `ConfigError` for no clips, clips without rain, or a crop larger than the frames.
    """
    if not clips:
        raise ConfigError("no clips to sample from; expected at least one")
    rng = np.random.default_rng([seed, index])
    pairs = [_item(clips[int(rng.integers(len(clips)))], rng, frames, crop, before, augment) for _ in range(batch)]
    rainy, clean = (torch.stack(side).float().div_(255) for side in zip(*pairs, strict=True))
    return Batch(rainy, clean)


def _item(
    clip: Clip, rng: np.random.Generator, frames: int, crop: int, before: bool, augment: bool
) -> tuple[Tensor, Tensor]:
    if not clip.rainy:
        raise ConfigError(f"clip '{clip.name}' has no rainy version; load it with a rain preset")
    rainy = clip.rainy[int(rng.integers(len(clip.rainy)))]
    centre = int(rng.integers(len(clip.frames)))
    height, width = clip.frames.shape[-2:]
    view = random_view(rng, height, width, crop, augment=augment)
    around = window_indices(centre, len(clip.frames), frames, before)
    return view.of(rainy, around), view.of(clip.frames, around)


def _named(sources: Iterable[str | Path] | Mapping[str, str | Path]) -> Mapping[str, str | Path]:
    if isinstance(sources, Mapping):
        return sources
    named: dict[str, str | Path] = {}
    for source in sources:
        name = Path(source).stem
        if name in named:
            raise ConfigError(f"two clips are called '{name}': {named[name]} and {source}; give them names")
        named[name] = source
    return named


def _seed(name: str, seed: int, version: int = 0) -> int:
    words = np.random.SeedSequence([seed, zlib.crc32(name.encode()), version]).generate_state(2)
    return int(words[0]) << 32 | int(words[1])
