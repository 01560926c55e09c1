"""Paired data sets: rainy clips and their ground truth, matched by clip and frame number."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, TypeAlias

from nas.errors import InvalidFileError
from tmics_space.data.frames import read_image
from tmics_space.data.layouts import Layout, find_layout, layouts
from tmics_space.data.stored import Read, StoredFrames

Files: TypeAlias = dict[int, Path]
Folder: TypeAlias = tuple[Path, dict[str, str]]
"""a folder, and the placeholders read off its path"""


class PairedClip(NamedTuple):
    """A rainy clip and its ground truth: equally many files, matched by `numbers`, ascending.

    `film` is the name of the ground truth, which several rainy clips may share.
    """

    name: str
    film: str
    numbers: tuple[int, ...]
    rain: tuple[Path, ...]
    truth: tuple[Path, ...]
    crop: int = 1

    def load(
        self, start: int = 0, stop: int | None = None, read: Read = read_image
    ) -> tuple[StoredFrames, StoredFrames]:
        """The rainy and the clean frames from position `start` to `stop`, to be read from their files by `read`, cut at
        the right and the bottom to a multiple of `crop`. Raises `InvalidFileError` where a file's size differs."""
        rainy, clean = (StoredFrames(files[start:stop], self.crop, read) for files in (self.rain, self.truth))
        clean.require_like(rainy)
        return rainy, clean


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
    paths = described.split(split)
    rain, truth = (_find(root, path, described) for path in (paths.rain, paths.truth))
    clips: list[PairedClip] = []
    skipped: list[str] = []
    used = set()
    for film, version in sorted(rain, key=lambda key: [_natural(name) for name in key]):
        name = f"{film}_{version}" if version else film
        key = (film, version) if (film, version) in truth else (film, "")
        used.add(key)
        wet, dry = rain[film, version], truth.get(key, {})
        both, alone = sorted(wet.keys() & dry.keys()), sorted(wet.keys() ^ dry.keys())
        if not both:
            missing = "no rainy frame" if not wet else "no ground truth" if not dry else "no frame number in common"
            skipped.append(f"clip {name}: {missing}")
            continue
        skipped += [f"clip {name}: frame {n} has no {'ground truth' if n in wet else 'rainy image'}" for n in alone]
        files = tuple(wet[n] for n in both), tuple(dry[n] for n in both)
        clips.append(PairedClip(name, film, tuple(both), *files, described.crop))
    skipped += [f"clip {film}: no rainy frame" for film, _ in sorted(truth.keys() - used)]
    if not clips:
        found = skipped[0] if skipped else "no clip"
        raise InvalidFileError(f"{root}: no pair of '{paths.rain}' and '{paths.truth}' ({found})")
    return PairedDataset(tuple(clips), tuple(skipped))


def _find(root: Path, path: str, layout: Layout) -> dict[tuple[str, str], Files]:
    """By (clip, version) the frames below `root` that `path` matches; folders without frames stay, empty."""
    *parts, leaf = path.split("/")
    folders: list[Folder] = [(root, {})]
    for part in parts:
        folders = _descend(folders, part, layout)
    suffixes = "|".join(map(re.escape, layout.suffixes))
    frame = re.compile(f"{layout.pattern(leaf).pattern}(?i:{suffixes})")
    clips: dict[tuple[str, str], Files] = {}
    for folder, names in folders:
        if "clip" in names:
            clips.setdefault(_key(names), {})
        for file in sorted(folder.iterdir()):
            if match := frame.fullmatch(file.name):
                number = _number(match["frame"], file)
                files = clips.setdefault(_key({**names, **match.groupdict()}), {})
                if number >= layout.start and files.setdefault(number, file) != file:
                    raise InvalidFileError(f"{file}: the same clip and frame number as {files[number]}")
    return clips


def _descend(folders: list[Folder], part: str, layout: Layout) -> list[Folder]:
    pattern = layout.pattern(part)
    below = [
        (child, {**names, **match.groupdict()})
        for folder, names in folders
        for child in (sorted(folder.iterdir()) if folder.is_dir() else ())
        if child.is_dir() and (match := pattern.fullmatch(child.name))
    ]
    if not below:
        where = folders[0][0]
        here = ", ".join(sorted(path.name for path in where.iterdir())[:8]) if where.is_dir() else "no such folder"
        known = ", ".join(layouts())
        found = f"expected a folder '{part}' in it, found {here or 'nothing'}"
        raise InvalidFileError(f"{where}: {found}; layouts are {known}, or a YAML file of yours")
    return below


def _key(names: dict[str, str]) -> tuple[str, str]:
    return names["clip"], names.get("version", "")


def _number(text: str, file: Path) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InvalidFileError(f"{file}: frame '{text}' is not an integer; check the layout's 'frame'") from error


def _natural(name: str) -> list[int | str]:
    """A key that sorts 'a2' before 'a10': text and numbers take turns, so that like is compared with like."""
    return [int(text) if text.isdigit() else text for text in re.split(r"(\d+)", name)]
