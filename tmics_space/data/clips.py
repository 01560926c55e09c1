"""Rainy and clean clips in memory or on disk, and batches of windows from them."""

from __future__ import annotations

import itertools
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.errors import ConfigError
from tmics_space.data.compression import NO_COMPRESSION, Compression
from tmics_space.data.effects import Effects
from tmics_space.data.frames import IMAGE_SUFFIXES, clip_name, iterate_frames, read_image
from tmics_space.data.mapped import chosen, stacked
from tmics_space.data.motion import CameraMotion, move_camera
from tmics_space.data.packed import PackedFrames
from tmics_space.data.paired import PairedClip
from tmics_space.data.rainfall import DrawnRain, RainMix, RainPreset, rain
from tmics_space.data.shots import find_gaps, shot_bounds
from tmics_space.data.stored import Frames, cached
from tmics_space.data.twins import find_twins
from tmics_space.data.windowing import View, random_view, window_indices

_ROOM = 1.5  # size of the picture under a synthetic camera, in sizes of the view


@dataclass(frozen=True, eq=False)
class Clip:
    """One shot of a film: clean frames, and rainy versions of them."""

    name: str
    film: str
    frames: Frames
    rainy: tuple[Frames, ...] = ()
    effects: Effects | None = None
    """What is drawn for each window, if `rainy` is empty."""
    seed: int = 0
    """Of the effects on the whole clip."""
    weight: float = 1.0
    """How often windows are drawn from the clip, relative to others."""

    def versions(self) -> list[tuple[Tensor, Tensor]]:
        """Return the rainy versions of the whole clip, each with its ground truth.

        With `effects` there is one, drawn from the clip's seed, and a photograph is seen by a moving camera.
        """
        if self.effects is None:
            return [(rainy[:], self.frames[:]) for rainy in self.rainy]
        clean, rng = self.frames[:], np.random.default_rng(self.seed)
        motion = self.effects.motion
        if len(clean) == 1 and motion is not None:
            size = int(clean.shape[-2] / _ROOM), int(clean.shape[-1] / _ROOM)
            clean = move_camera(clean[0], size, self.seed, motion, int(motion.period))
        return [self.effects.clip(clean, rng)]


class Batch(NamedTuple):
    """Rainy windows and their ground truth, both `(batch, frames, 3, height, width)` float32 in [0, 1]."""

    rainy: Tensor
    window: Tensor

    @property
    def clean(self) -> Tensor:
        """The ground truth of the centre frames, `(batch, 3, height, width)`."""
        return self.window[:, self.window.shape[1] // 2]


def load_clips(
    sources: Iterable[str | Path] | Mapping[str, str | Path],
    preset: str | RainPreset | RainMix | None = None,
    seed: int = 0,
    *,
    rains: int = 1,
    size: tuple[int, int] | None = None,
    stride: int = 1,
    limit: int | None = None,
    shortest: int = 5,
    motion: CameraMotion | None = None,
    twins: float = 0.0,
    compression: Compression = NO_COMPRESSION,
    photographs: float | None = None,
) -> list[Clip]:
    """Read clean films, cut them into shots, and add synthetic rain.

    A gap in the numbers of a folder's frames is a cut. Frames that repeat the one before are dropped. The rain of a
    shot depends only on its name and the seed. If it is a mixture, the clips hold clean frames only, packed, and rain,
    motion, twins and compression are drawn for each window.

    Args:
        sources: video files, folders of frames or photographs, by name or named after their files.
        preset: kind of rain; None adds no rain.
        seed: of the rain and the motion.
        rains: number of rainy versions of each shot; a mixture has none.
        size: greatest (height, width); larger frames are scaled down to cover it and cropped at the centre.
        stride: reads every `stride`-th frame.
        limit: greatest number of frames of a film; with `motion`, the number of frames made of a photograph.
        shortest: least number of frames of a shot; shorter shots are skipped.
        motion: moves a synthetic camera with views of `size`.
        twins: share of the windows in which a frame is shown twice; only with a mixture.
        compression: lossy files that the frames have been through; drawn for each version, or for each window.
        photographs: share of the windows that come from photographs, if there are any; films share the rest by their
            lengths. By default all clips are drawn equally often.

    Returns:
        The clips.

    Raises:
        InvalidFileError: a film cannot be read (`tmics_space.data.frames.iterate_frames`).
        ConfigError: two films have one name, no shot is long enough, a number is below 1, `motion` has no `size`, a
            photograph has no `motion`, or a picture is too small for it.
    """
    if stride < 1 or (limit is not None and limit < 1) or rains < 1:
        raise ConfigError(f"stride, limit and rains must be at least 1, got {stride}, {limit} and {rains}")
    drawn = isinstance(preset, RainMix)
    if motion is not None and size is None and not drawn:
        raise ConfigError("'size' must be given if the camera moves, got None")
    room = size if motion is None or size is None or drawn else (int(size[0] * _ROOM), int(size[1] * _ROOM))
    effects = Effects(DrawnRain(preset), motion, twins, compression) if isinstance(preset, RainMix) else None
    clips: list[Clip] = []
    named, skipped = _named(sources), []
    for film, source in named.items():
        photograph = Path(source).suffix.lower() in IMAGE_SUFFIXES
        if photograph and motion is None:
            raise ConfigError(f"{source}: a photograph needs 'motion', which makes a clip of it, got none")
        shots, before = _shots(source, stride, limit, room, packed=drawn and not photograph), len(clips)
        for number, shot in enumerate(shots):
            name = film if len(shots) == 1 else f"{film}/{number}"
            key = _seed(name, seed)
            if isinstance(shot, Tensor) and not drawn and motion is not None and size is not None:
                shot = _moved(shot, size, key, motion, limit, source)
            if len(shot) < shortest and not (photograph and drawn):
                continue
            clip = Clip(name, film, shot, effects=effects, seed=key)
            clips.append(clip if isinstance(preset, RainMix) else _rained(clip, preset, seed, rains, compression))
        if len(clips) == before:
            skipped.append(str(source))
    if not clips:
        raise ConfigError(f"the films must have a shot of at least {shortest} frames, got none: {', '.join(named)}")
    if skipped:
        where = ", ".join(skipped)
        warnings.warn(f"films skipped, no shot of at least {shortest} different frames: {where}", stacklevel=2)
    return clips if photographs is None else _weighted(clips, photographs)


def _weighted(clips: list[Clip], photographs: float) -> list[Clip]:
    """Give photographs a share of the windows, and films the rest, by their lengths."""
    stills = [len(clip.frames) == 1 for clip in clips]
    frames = sum(len(clip.frames) for clip, still in zip(clips, stills, strict=True) if not still)
    if not any(stills) or not frames:
        return clips
    each, share = photographs / sum(stills), (1 - photographs) / frames
    weights = [each if still else share * len(clip.frames) for clip, still in zip(clips, stills, strict=True)]
    return [replace(clip, weight=weight) for clip, weight in zip(clips, weights, strict=True)]


def _moved(
    shot: Tensor, size: tuple[int, int], seed: int, motion: CameraMotion, limit: int | None, source: str | Path
) -> Tensor:
    """Move a camera over a shot or a photograph; errors name the file."""
    count = (limit or int(motion.period)) if len(shot) == 1 else len(shot)
    try:
        return move_camera(shot[0] if len(shot) == 1 else shot, size, seed, motion, count)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def _shots(
    source: str | Path, stride: int, limit: int | None, size: tuple[int, int] | None, *, packed: bool
) -> Sequence[Tensor | PackedFrames]:
    """Read the shots of a film, without twins."""
    stream = iterate_frames(source)
    wanted = None if limit is None else limit * stride
    frames = (fit(frame, size) for frame in itertools.islice(stream, 0, wanted, stride))
    clip = PackedFrames.pack(frames) if packed else stacked(frames)
    gaps = {-(-gap // stride) for gap in stream.cuts}  # at the first frame after each gap
    shots = []
    for start, stop in shot_bounds(clip, len(clip), [gap for gap in gaps if gap < len(clip)]):
        twins = {start + index for index in find_twins(clip[index : index + 1][0] for index in range(start, stop))}
        indices = [index for index in range(start, stop) if index not in twins]
        shots.append(chosen(clip, indices) if isinstance(clip, Tensor) else clip.select(indices))
    return shots


def _rained(clip: Clip, preset: str | RainPreset | None, seed: int, rains: int, compression: Compression) -> Clip:
    """Add rainy versions of a shot."""
    if preset is None:
        return clip
    rainy = []
    for version in range(rains):
        key = _seed(clip.name, seed, version)
        wet = rain(clip.frames[:], preset, key)
        rainy.append(compression.apply(wet, wet, np.random.default_rng([key, 1]))[0])
    return replace(clip, rainy=tuple(rainy))


def load_pairs(pairs: Iterable[PairedClip], limit: int | None = None) -> list[Clip]:
    """Load the clips of a paired data set, divided at gaps in the frame numbers.

    Long video files are in a temporary file (`tmics_space.data.mapped.stacked`). Images stay on disk;
    `tmics_space.data.stored.CACHE` bytes of those last read are in memory.

    Args:
        pairs: of rainy and clean clips.
        limit: greatest number of frames of a clip.

    Returns:
        The clips.

    Raises:
        InvalidFileError: a file cannot be read or has another size.
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
    """Scale a frame `(3, height, width)` uint8 down to cover `size`, never up, and crop it at the centre."""
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
    """Draw a batch of random windows, a function of the arguments only, so that a resumed run gets the same batches.

    Each item has a random clip, rainy version, centre frame and square.

    Args:
        clips: to draw from.
        index: number of the batch.
        seed: of the random numbers.
        frames: odd length of the windows.
        crop: side of the square in pixels.
        batch: number of windows.
        before: begin windows one frame earlier.
        augment: mirror and reverse windows at random.

    Returns:
        The windows.

    Raises:
        ConfigError: there is no clip, a clip has no rain, `frames` is even, or the crop is larger than the frames.
    """
    if not clips:
        raise ConfigError("there must be at least one clip to sample from, got none")
    rng = np.random.default_rng([seed, index])
    weights = np.array([clip.weight for clip in clips])
    shares = None if (weights == weights[0]).all() else weights / weights.sum()
    pairs = []
    for _ in range(batch):
        clip = clips[int(rng.integers(len(clips)) if shares is None else rng.choice(len(clips), p=shares))]
        pairs.append(_item(clip, rng, frames, crop, before, augment))
    rainy, clean = (torch.stack(side).float().div_(255) for side in zip(*pairs, strict=True))
    return Batch(rainy, clean)


def _item(
    clip: Clip, rng: np.random.Generator, frames: int, crop: int, before: bool, augment: bool
) -> tuple[Tensor, Tensor]:
    if clip.effects is not None:
        view, around = _window(clip, rng, frames, crop, before, augment)
        return clip.effects.window(clip.frames, around, view, rng)
    if not clip.rainy:
        raise ConfigError(f"clip '{clip.name}' must have a rainy version, got none. Load it with a rain preset")
    rainy = clip.rainy[int(rng.integers(len(clip.rainy)))]
    view, around = _window(clip, rng, frames, crop, before, augment)
    return view.of(rainy, around), view.of(clip.frames, around)


def _window(
    clip: Clip, rng: np.random.Generator, frames: int, crop: int, before: bool, augment: bool
) -> tuple[View, list[int]]:
    centre = int(rng.integers(len(clip.frames)))
    height, width = clip.frames.shape[-2:]
    try:
        view = random_view(rng, height, width, crop, augment=augment)
    except ConfigError as error:
        raise ConfigError(f"clip '{clip.name}': {error}") from error
    return view, window_indices(centre, len(clip.frames), frames, before)


def _named(sources: Iterable[str | Path] | Mapping[str, str | Path]) -> Mapping[str, str | Path]:
    if isinstance(sources, Mapping):
        return sources
    named: dict[str, str | Path] = {}
    for source in sources:
        name = clip_name(Path(source))
        if name in named:
            raise ConfigError(
                f"names of films must be unique, got '{name}' for {named[name]} and {source}. Pass a mapping of names"
            )
        named[name] = source
    return named


def _seed(name: str, seed: int, version: int = 0) -> int:
    words = np.random.SeedSequence([seed, zlib.crc32(name.encode()), version]).generate_state(2)
    return int(words[0]) << 32 | int(words[1])
