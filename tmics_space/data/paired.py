"""Paired data sets: rainy clips and their ground truth, matched by clip name and frame number."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, TypeAlias

from torch import Tensor

from nas.errors import InvalidFileError
from nas.files import listed
from tmics_space.data.frames import iterate_frames, read_frames, read_image
from tmics_space.data.layouts import LAYOUTS, Layout, Split, find_layout
from tmics_space.data.stored import Frames, Read, StoredFrames
from tmics_space.data.video import READ_SUFFIXES

Side: TypeAlias = dict[int, Path] | Path
"""The frames of a clip by number, or its video file."""
Folder: TypeAlias = tuple[Path, dict[str, str]]
"""A folder and the placeholders from its path."""


class PairedClip(NamedTuple):
    """A rainy clip and its ground truth, with equally many frames."""

    name: str
    film: str
    """The name of the ground truth; several rainy clips can share it."""
    numbers: tuple[int, ...]
    """The frame numbers, ascending."""
    rain: tuple[Path, ...]
    """A file for each frame, or one video file."""
    truth: tuple[Path, ...]
    """A file for each frame, or one video file."""
    crop: int = 1
    """Frames are cropped at the right and the bottom to a multiple of it, in px."""
    video: bool = False
    """Whether both sides are video files."""

    def load(self, start: int = 0, stop: int | None = None, read: Read = read_image) -> tuple[Frames, Frames]:
        """Load the rainy and the clean frames.

        Args:
            start: first position, from 0.
            stop: end of the range, exclusive.
            read: reads an image file.

        Returns:
            Rainy and clean frames, `(frames, 3, height, width)` uint8 each; images are read at the first use.

        Raises:
            InvalidFileError: a file cannot be read or has another size.
        """
        if self.video:
            wet, dry = (self._read(path, start, stop) for path in (*self.rain, *self.truth))
            if wet.shape != dry.shape:
                found, expected = (f"{clip.shape[3]}x{clip.shape[2]}" for clip in (dry, wet))
                raise InvalidFileError(f"{self.truth[0]}: must be {expected} like {self.rain[0]}, got {found}")
            return wet, dry
        rainy, clean = (StoredFrames(files[start:stop], self.crop, read) for files in (self.rain, self.truth))
        clean.require_like(rainy)
        return rainy, clean

    def _read(self, path: Path, start: int, stop: int | None) -> Tensor:
        clip = read_frames(path, start, min(stop or len(self.numbers), len(self.numbers)))
        height, width = (side - side % self.crop for side in clip.shape[2:])
        return clip[..., :height, :width]


class PairedDataset(NamedTuple):
    """The clips of a split in the natural order of their names, and one line for each skipped frame or clip."""

    clips: tuple[PairedClip, ...]
    skipped: tuple[str, ...]


def paired_dataset(root: str | Path, layout: str | Path | Layout, split: str) -> PairedDataset:
    """Find the pairs of a split of a data set; skip and list frames and clips without a partner.

    Args:
        root: folder of the data set.
        layout: a shipped description by name, a YAML file, or a `Layout`.
        split: name of the split in the layout.

    Returns:
        The pairs and what was skipped.

    Raises:
        UnknownNameError: no layout or split has this name.
        InvalidFileError: a folder is missing, two files have one number, or there is no pair.
    """
    described, root = find_layout(layout), Path(root)
    reasons: dict[str, None] = {}
    for paths in described.split(split):
        try:
            return _matched(root, paths, described)
        except _NothingFoundError as error:
            reasons[str(error)] = None
    raise InvalidFileError(f"{'; '.join(reasons)}. Layouts are {', '.join(LAYOUTS.names())}, or your own YAML file")


class _NothingFoundError(Exception):
    """No file matches a layout."""


def _matched(root: Path, paths: Split, layout: Layout) -> PairedDataset:
    (rain, strange), (truth, strange_too) = (_find(root, path, layout) for path in (paths.rain, paths.truth))
    clips: list[PairedClip] = []
    skipped: list[str] = []
    used = set()
    for film, version in sorted(rain, key=lambda key: [_natural(name) for name in key]):
        name = f"{film}_{version}" if version else film
        key = (film, version) if (film, version) in truth else (film, "")
        used.add(key)
        wet, dry = rain[film, version], truth.get(key, {})
        if isinstance(wet, Path) and isinstance(dry, Path):
            lengths = [len(iterate_frames(path)) for path in (wet, dry)]
            numbers = tuple(range(min(lengths)))
            clips.append(PairedClip(name, film, numbers, (wet,), (dry,), layout.crop, video=True))
            if lengths[0] != lengths[1]:
                lacking = "ground truth" if lengths[0] > lengths[1] else "rainy image"
                skipped.append(f"clip {name}: frames from {len(numbers)} to {max(lengths) - 1} have no {lacking}")
            continue
        wet, dry = (side if isinstance(side, dict) else {} for side in (wet, dry))
        both, alone = sorted(wet.keys() & dry.keys()), sorted(wet.keys() ^ dry.keys())
        if not both:
            missing = "no rainy frame" if not wet else "no ground truth" if not dry else "no frame number in common"
            skipped.append(f"clip {name}: {missing}")
            continue
        skipped += [f"clip {name}: frame {n} has no {'ground truth' if n in wet else 'rainy image'}" for n in alone]
        files = tuple(wet[n] for n in both), tuple(dry[n] for n in both)
        clips.append(PairedClip(name, film, tuple(both), *files, layout.crop))
    skipped += [f"clip {film}: no rainy frame" for film, _ in sorted(truth.keys() - used)]
    if not clips:
        named = [f"'{path.relative_to(root)}' does not match" for path in (*strange[:1], *strange_too[:1])]
        found = "; ".join(skipped[:1] + named) or "no clip"
        raise _NothingFoundError(f"{root}: must have a pair of '{paths.rain}' and '{paths.truth}', got none ({found})")
    return PairedDataset(tuple(clips), tuple(skipped))


def _find(root: Path, path: str, layout: Layout) -> tuple[dict[tuple[str, str], Side], list[Path]]:
    """Map (clip, version) to the matches of `path` below `root`, also without frames; list files that do not match."""
    *parts, leaf = path.split("/")
    folders: list[Folder] = [(root, {})]
    for part in parts:
        folders = _descend(folders, part, layout)
    video = "{frame}" not in path
    suffixes = "|".join(map(re.escape, READ_SUFFIXES if video else layout.suffixes))
    pattern = re.compile(f"{layout.pattern(leaf).pattern}(?i:{suffixes})")
    clips: dict[tuple[str, str], Side] = {}
    strange, name = [], root.resolve().name
    for folder, names in folders:
        if "clip" in names and not video:
            clips.setdefault(_key(name, names), {})
        for file in listed(folder):
            match = pattern.fullmatch(file.name)
            if match is None:
                strange += [file] if file.is_file() else []
                continue
            key = _key(name, {**names, **match.groupdict()})
            if video:
                number, other = None, clips.setdefault(key, file)
            else:
                number, frames = _number(match["frame"], file), clips.setdefault(key, {})
                if number < layout.start or not isinstance(frames, dict):
                    continue
                other = frames.setdefault(number, file)
            if other != file:
                raise InvalidFileError(f"{file}: the same clip{' and frame number' * (not video)} as {other}")
    return clips, strange


def _descend(folders: list[Folder], part: str, layout: Layout) -> list[Folder]:
    pattern = layout.pattern(part)
    below = [
        (child, {**names, **match.groupdict()})
        for folder, names in folders
        for child in (listed(folder) if folder.is_dir() else ())
        if child.is_dir() and (match := pattern.fullmatch(child.name))
    ]
    if not below:
        where = folders[0][0]
        here = ", ".join(path.name for path in listed(where)[:8]) if where.is_dir() else "no such folder"
        raise _NothingFoundError(f"{where}: must contain a folder '{part}', got {here or 'nothing'}")
    return below


def _key(name: str, names: dict[str, str]) -> tuple[str, str]:
    return names.get("clip", name), names.get("version", "")


def _number(text: str, file: Path) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InvalidFileError(f"{file}: frame must be an integer, got '{text}'. Check the layout's 'frame'") from error


def _natural(name: str) -> list[int | str]:
    """Make a key that sorts 'a2' before 'a10': texts and numbers alternate."""
    return [int(text) if text.isdecimal() else text for text in re.split(r"(\d+)", name)]
