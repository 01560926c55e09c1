"""Several versions of the same clips, such as outputs of methods and the truth, matched by clip and frame."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from nas.errors import InvalidFileError, MissingFileError
from nas.files import listed
from tmics_space.data.frames import IMAGE_SUFFIXES, FrameStream, clip_name, iterate_frames, numbered_files
from tmics_space.data.video import READ_SUFFIXES

PLACEHOLDER = "{clip}"
"""Stands for the name of a clip in a path."""


class MatchedClip(NamedTuple):
    """Versions of one clip, and the frames that all of them have."""

    name: str
    versions: dict[str, FrameStream]
    """By name; the first is the reference."""
    places: dict[str, tuple[int, ...]]
    """The positions, from 0, of the common frames in each version; equally many, ascending."""
    numbers: tuple[int, ...]
    """The numbers of the common frames: those in the names of files, else positions."""
    skipped: tuple[str, ...]
    """A line for each frame that not all versions have."""

    def frames(self) -> Iterator[dict[str, Tensor]]:
        """Read the common frames, `(3, height, width)` uint8 by version, in constant memory.

        Raises:
            InvalidFileError: a file cannot be read, has another size than the others, or ends too early.
        """
        each = {name: self._chosen(name) for name in self.versions}
        for _ in self.numbers:
            yield {name: next(frames) for name, frames in each.items()}

    def _chosen(self, name: str) -> Iterator[Tensor]:
        stream, wanted = self.versions[name], set(self.places[name])
        found = 0
        for place, frame in enumerate(itertools.islice(stream, max(wanted) + 1)):
            if place in wanted:
                found += 1
                yield frame
        if found < len(wanted):
            raise InvalidFileError(f"{stream.source}: must have {len(stream)} frames, got only {max(place + 1, found)}")


def find_clips(source: Path) -> dict[str, Path]:
    """Find the clips of a source: one video, image or folder of frames, or a folder of these.

    Args:
        source: its path. If a part of it contains `{clip}`, as in `test/{clip}_GT`, all paths of this form are clips.

    Returns:
        The clips, by the names of their files or folders, or by what stands for `{clip}`.

    Raises:
        InvalidFileError: there is no clip, or two have one name.
    """
    if any(PLACEHOLDER in part for part in source.parts):
        return _of_form(source)
    if source.is_file():
        return {source.stem: source}
    if not source.is_dir():
        raise MissingFileError(f"{source}: no such file or folder; expected a video, frames, or a folder of clips")
    files = listed(source)
    if any(file.is_file() and file.suffix.lower() in IMAGE_SUFFIXES for file in files):
        return {source.resolve().name: source}
    clips: dict[str, Path] = {}
    for file in files:
        if file.is_dir() or file.suffix.lower() in READ_SUFFIXES:
            other = clips.setdefault(clip_name(file), file)
            if other != file:
                raise InvalidFileError(f"{file}: the same clip as {other}; expected one file or folder a clip")
    if not clips:
        raise InvalidFileError(f"{source}: must have numbered images, or videos or folders of them, got none")
    return clips


def _of_form(form: Path) -> dict[str, Path]:
    """Find the paths of a form such as `test/{clip}_GT`."""
    at = next(place for place, part in enumerate(form.parts) if PLACEHOLDER in part)
    base, below = Path(*form.parts[:at]), Path(*form.parts[at + 1 :])
    pattern = re.compile(re.escape(form.parts[at]).replace(re.escape(PLACEHOLDER), "(.+)", 1))
    matches = {path: pattern.fullmatch(path.name) for path in listed(base)}
    clips = {match[1]: path / below for path, match in matches.items() if match and (path / below).exists()}
    if not clips:
        here = ", ".join(path.name for path in matches)[:80]
        raise InvalidFileError(f"{form}: a file or folder must have this form, got {here or 'none'}")
    return clips


def match_clips(sources: Mapping[str, Path]) -> tuple[list[MatchedClip], list[str]]:
    """Match clips by name, and their frames by number.

    Frames of folders are matched by the numbers in their names, those of videos by position. If every source has a
    single clip, the names of clips may differ.

    Args:
        sources: by name; the first is the reference, such as the truth. See `find_clips`.

    Returns:
        The clips of all sources, and a line for each clip that was skipped.

    Raises:
        InvalidFileError: a source has no clip, no clip is in all sources, or versions of a clip differ in size, length
            or numbers.
    """
    found = {name: find_clips(source) for name, source in sources.items()}
    reference, *_ = found.values()
    if all(len(clips) == 1 for clips in found.values()):
        (name,) = reference
        found = {version: dict.fromkeys([name], *clips.values()) for version, clips in found.items()}
    skipped = [
        f"clip {name}: not in {sources[version]}"
        for name in dict.fromkeys(itertools.chain.from_iterable(found.values()))
        for version, clips in found.items()
        if name not in clips
    ]
    common = [name for name in found[next(iter(found))] if all(name in clips for clips in found.values())]
    if not common:
        shown = "; ".join(f"{sources[version]}: {', '.join([*clips][:3])}" for version, clips in found.items())
        raise InvalidFileError(f"{sources[next(iter(sources))]}: no clip has the same name everywhere, got {shown}")
    return [_match(name, {version: clips[name] for version, clips in found.items()}) for name in common], skipped


def _match(name: str, paths: Mapping[str, Path]) -> MatchedClip:
    versions = {version: iterate_frames(path) for version, path in paths.items()}
    first, *others = versions.values()
    for stream in others:
        if (stream.height, stream.width) != (first.height, first.width):
            raise InvalidFileError(
                f"{stream.source}: frames must be {first.width}x{first.height} like {first.source}, got"
                f" {stream.width}x{stream.height}"
            )
    if not all(path.is_dir() for path in paths.values()):
        return _by_position(name, versions)
    numbers = {version: tuple(numbered_files(path)) for version, path in paths.items()}
    common = tuple(sorted(set.intersection(*map(set, numbers.values()))))
    expected = next(iter(numbers.values()))
    same_length = len({len(each) for each in numbers.values()}) == 1
    for version, each in numbers.items():
        # Numbers from 0 and from 1 have most of their values in common, but pairs would be shifted.
        shifted = same_length and each != expected
        if shifted or not set(each) & set(expected):
            raise InvalidFileError(
                f"{paths[version]}: numbers of frames must be those of {first.source}, {_span(expected)}, got"
                f" {_span(each)}"
            )
    if not common:
        raise InvalidFileError(
            f"{first.source}: a frame must be in all of {', '.join(map(str, paths.values()))}, got none"
        )
    skipped = tuple(
        f"clip {name}: frame {number} is not in {paths[version]}"
        for number in sorted(set().union(*numbers.values()) - set(common))
        for version, each in numbers.items()
        if number not in each
    )
    places = {version: _places(each, common) for version, each in numbers.items()}
    return MatchedClip(name, versions, places, common, skipped)


def _places(numbers: tuple[int, ...], chosen: tuple[int, ...]) -> tuple[int, ...]:
    wanted = set(chosen)
    return tuple(place for place, number in enumerate(numbers) if number in wanted)


def _by_position(name: str, versions: dict[str, FrameStream]) -> MatchedClip:
    first, *others = versions.values()
    for stream in others:
        if len(stream) != len(first):
            raise InvalidFileError(
                f"{stream.source}: must have {len(first)} frames like {first.source}, got {len(stream)}"
            )
    numbers = tuple(range(len(first)))
    return MatchedClip(name, versions, dict.fromkeys(versions, numbers), numbers, ())


def _span(numbers: tuple[int, ...]) -> str:
    return f"{len(numbers)} from {numbers[0]} to {numbers[-1]}"
