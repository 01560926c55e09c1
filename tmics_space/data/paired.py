"""Paired data sets: rainy clips and their ground truth, matched by clip and frame number."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, TypeAlias

from torch import Tensor

from nas.errors import InvalidFileError
from nas.files import listed
from tmics_space.data.frames import iterate_frames, read_frames, read_image
from tmics_space.data.layouts import Layout, Split, find_layout, layouts
from tmics_space.data.stored import Frames, Read, StoredFrames
from tmics_space.data.video import READ_SUFFIXES

Side: TypeAlias = dict[int, Path] | Path
"""The frames of a clip by number, or its video file."""
Folder: TypeAlias = tuple[Path, dict[str, str]]
"""a folder, and the placeholders read off its path"""


class PairedClip(NamedTuple):
    """A rainy clip and its ground truth: equally many frames, matched by `numbers`, ascending.

    `film` is the name of the ground truth, which several rainy clips may share. `rain` and `truth` are a file for each
    frame, or with `video` one video file.
    """

    name: str
    film: str
    numbers: tuple[int, ...]
    rain: tuple[Path, ...]
    truth: tuple[Path, ...]
    crop: int = 1
    video: bool = False

    def load(self, start: int = 0, stop: int | None = None, read: Read = read_image) -> tuple[Frames, Frames]:
        """The rainy and the clean frames from position `start` to `stop`, images to be read from their files by `read`,
        cut at the right and the bottom to a multiple of `crop`. Raises `InvalidFileError` if a file's size differs."""
        if self.video:
            wet, dry = (self._read(path, start, stop) for path in (*self.rain, *self.truth))
            if wet.shape != dry.shape:
                found, expected = (f"{clip.shape[3]}x{clip.shape[2]}" for clip in (dry, wet))
                raise InvalidFileError(f"{self.truth[0]}: {found}; expected {expected} as {self.rain[0]}")
            return wet, dry
        rainy, clean = (StoredFrames(files[start:stop], self.crop, read) for files in (self.rain, self.truth))
        clean.require_like(rainy)
        return rainy, clean

    def _read(self, path: Path, start: int, stop: int | None) -> Tensor:
        clip = read_frames(path, start, min(stop or len(self.numbers), len(self.numbers)))
        height, width = (side - side % self.crop for side in clip.shape[2:])
        return clip[..., :height, :width]


class PairedDataset(NamedTuple):
    """The clips of a split in the natural order of their names, and what was skipped, a line each."""

    clips: tuple[PairedClip, ...]
    skipped: tuple[str, ...]


def paired_dataset(root: str | Path, layout: str | Path | Layout, split: str) -> PairedDataset:
    """Find the pairs of a split of the data set under `root`. Frames and clips without a partner are skipped and told.

    `layout` is a shipped description by name, a YAML file, or a `Layout`. Raises `UnknownNameError` for an unknown
    layout or split, `InvalidFileError` for a missing folder, two files of one number, or no pair at all.
    """
    described, root = find_layout(layout), Path(root)
    reasons: dict[str, None] = {}
    for paths in described.split(split):
        try:
            return _matched(root, paths, described)
        except _NothingFoundError as error:
            reasons[str(error)] = None
    raise InvalidFileError(f"{'; '.join(reasons)}; layouts are {', '.join(layouts())}, or a YAML file of yours")


class _NothingFoundError(Exception):
    """Nothing lies where a layout says it may."""


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
        raise _NothingFoundError(f"{root}: no pair of '{paths.rain}' and '{paths.truth}' ({found})")
    return PairedDataset(tuple(clips), tuple(skipped))


def _find(root: Path, path: str, layout: Layout) -> tuple[dict[tuple[str, str], Side], list[Path]]:
    """By (clip, version) what `path` matches below `root`, folders without frames too, and files that do not match."""
    *parts, leaf = path.split("/")
    folders: list[Folder] = [(root, {})]
    for part in parts:
        folders = _descend(folders, part, layout)
    video = "{frame}" not in path
    suffixes = "|".join(map(re.escape, READ_SUFFIXES if video else layout.suffixes))
    pattern = re.compile(f"{layout.pattern(leaf).pattern}(?i:{suffixes})")
    clips: dict[tuple[str, str], Side] = {}
    strange = []
    for folder, names in folders:
        if "clip" in names and not video:
            clips.setdefault(_key(root, names), {})
        for file in listed(folder):
            match = pattern.fullmatch(file.name)
            if match is None:
                strange += [file] if file.is_file() else []
                continue
            key = _key(root, {**names, **match.groupdict()})
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
        raise _NothingFoundError(f"{where}: expected a folder '{part}' in it, found {here or 'nothing'}")
    return below


def _key(root: Path, names: dict[str, str]) -> tuple[str, str]:
    return names.get("clip", root.resolve().name), names.get("version", "")


def _number(text: str, file: Path) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InvalidFileError(f"{file}: frame '{text}' is not an integer; check the layout's 'frame'") from error


def _natural(name: str) -> list[int | str]:
    """A key that sorts 'a2' before 'a10': text and numbers take turns, so that like is compared with like."""
    return [int(text) if text.isdecimal() else text for text in re.split(r"(\d+)", name)]
