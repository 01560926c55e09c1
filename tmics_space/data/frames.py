"""Readers of clips: folders of numbered images, video files and single photographs, whole or frame by frame."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import nas.run.images
from nas.errors import ConfigError, InvalidFileError, MissingFileError
from nas.files import listed
from nas.run.images import read_upright, upright_size
from tmics_space.data.mapped import stacked
from tmics_space.data.shots import find_gaps
from tmics_space.data.video import Film, Span, decode_video, probe_video

IMAGE_SUFFIXES = tuple(suffix for suffix in nas.run.images.IMAGE_SUFFIXES if suffix != ".gif")
"""The suffixes of single images; a GIF file is a film."""

FRAME_RATE = 25.0
"""The frame rate of clips that state none, in frames per second."""


@dataclass(frozen=True)
class FrameStream:
    """A clip on disk. Iteration reads its frames from the first one, `(3, height, width)` uint8, in constant memory.

    Raises:
        InvalidFileError: during iteration, a frame cannot be read or has another size than the first.
    """

    source: Path
    frame_count: int
    """The number of files in the folder, or of packets in the video."""
    height: int
    width: int
    frame_rate: float
    """In frames per second."""
    stems: tuple[str, ...]
    """The file names of a folder's frames, without suffix; empty for a video."""
    open: Callable[[], Iterable[tuple[Tensor, Span | None]]]
    cuts: tuple[int, ...] = ()
    """The positions of frames that follow a gap in the numbers. No window may reach across a gap."""
    film: Film | None = None
    """Set for a video."""

    def __len__(self) -> int:
        return self.frame_count

    def __iter__(self) -> Iterator[Tensor]:
        return (frame for frame, _ in self.timed())

    def timed(self) -> Iterator[tuple[Tensor, Span | None]]:
        """Iterate over the frames and the times at which a video shows them."""
        for index, (frame, span) in enumerate(self.open()):
            where = f"{self.source}: frame {self.stems[index] if self.stems else index}"
            yield _sized(frame, (self.height, self.width), where), span


def iterate_frames(source: str | Path) -> FrameStream:
    """Open a folder of numbered images, a video file or one image.

    Args:
        source: its path.

    Returns:
        A stream of frames.

    Raises:
        InvalidFileError: the source cannot be read.
        MissingPackageError: the source is a video and PyAV is not installed.
    """
    path = Path(source)
    if path.is_file() and path.suffix.lower() not in IMAGE_SUFFIXES:
        film = probe_video(path)
        size = film.height, film.width
        return FrameStream(
            path, film.frame_count, *size, film.frame_rate, (), functools.partial(decode_video, film), film=film
        )
    numbered = {0: path} if path.is_file() else numbered_files(path)
    files = list(numbered.values())
    height, width = upright_size(files[0])
    stems = tuple(file.stem for file in files)

    def read() -> Iterator[tuple[Tensor, Span | None]]:
        return ((read_image(file), None) for file in files)

    return FrameStream(path, len(files), height, width, FRAME_RATE, stems, read, find_gaps(list(numbered)))


def read_frames(source: str | Path, start: int = 0, stop: int | None = None, step: int = 1) -> Tensor:
    """Read the frames `start:stop:step` of a folder, a video file or one image.

    Args:
        source: its path.
        start: first frame, from 0.
        stop: end of the range, exclusive.
        step: distance of the frames.

    Returns:
        Frames, `(frames, 3, height, width)` uint8.

    Raises:
        InvalidFileError: the source cannot be read.
        ConfigError: the range is not valid, or contains no frame of the clip.
    """
    if start < 0 or step < 1 or (stop is not None and stop <= start):
        raise ConfigError(f"a range of frames must have 0 <= start < stop and step >= 1, got {start}:{stop}:{step}")
    path = Path(source)
    if path.is_dir():
        chosen = list(numbered_files(path).values())[start:stop:step]
        frames = _alike(chosen) if chosen else iter(())
    else:
        frames = itertools.islice(iterate_frames(path), start, stop, step)
    first = next(frames, None)
    if first is None:
        raise ConfigError(f"{path}: the range must contain a frame of the clip, got {start}:{stop}")
    return stacked(itertools.chain([first], frames))


def read_image(path: str | Path) -> Tensor:
    """Read an 8-bit image, upright, as RGB: `(3, height, width)` uint8.

    Raises:
        InvalidFileError: the file cannot be read.
    """
    return torch.from_numpy(np.array(read_upright(path))).permute(2, 0, 1).contiguous()


def clip_name(source: Path) -> str:
    """Return the name of a clip: that of its folder, or that of its file without the suffix."""
    return source.name if source.is_dir() else source.stem


def numbered_files(folder: str | Path) -> dict[int, Path]:
    """List the images of a folder by the last integer in their names, ascending; skip other and hidden files.

    Raises:
        MissingFileError: the folder does not exist.
        InvalidFileError: the folder has no images, or a name has no number or the number of another one.
    """
    path = Path(folder)
    if not path.is_dir():
        raise MissingFileError(f"{path}: no such folder or file; expected a folder of numbered images or a video")
    numbered: dict[int, Path] = {}
    for file in listed(path):
        if file.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        numbers = re.findall(r"\d+", file.stem)
        if not numbers:
            raise InvalidFileError(f"{file}: no number in the name; expected frames such as 00001{file.suffix}")
        other = numbered.setdefault(int(numbers[-1]), file)
        if other != file:
            raise InvalidFileError(f"{file}: the same frame number as {other.name}; expected one file a frame")
    if not numbered:
        raise InvalidFileError(f"{path}: no image in this folder; expected {', '.join(IMAGE_SUFFIXES)} files")
    return dict(sorted(numbered.items()))


def _alike(files: Iterable[Path]) -> Iterator[Tensor]:
    size: tuple[int, int] | None = None
    for file in files:
        frame = read_image(file)
        size = size or (frame.shape[1], frame.shape[2])
        yield _sized(frame, size, str(file))


def _sized(frame: Tensor, size: tuple[int, int], where: str) -> Tensor:
    height, width = frame.shape[1:]
    if (height, width) != size:
        raise InvalidFileError(f"{where}: must be {size[1]}x{size[0]} like the first frame, got {width}x{height}")
    return frame
