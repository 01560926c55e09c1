"""Reading clips: folders of numbered images, video files and single photographs, whole or frame by frame."""

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

import nas.imagefiles
from nas.errors import ConfigError, InvalidFileError
from nas.files import listed
from nas.imagefiles import read_upright, upright_size
from tmics_space.data.shots import find_gaps
from tmics_space.data.video import Film, Span, decode_video, probe_video

IMAGE_SUFFIXES = tuple(suffix for suffix in nas.imagefiles.IMAGE_SUFFIXES if suffix != ".gif")
"""of single images; a GIF file is a film"""

FRAME_RATE = 25.0
"""of clips that state none, in frames per second"""


@dataclass(frozen=True)
class FrameStream:
    """A clip on disk. Iterating reads it from its first frame, (3, height, width) uint8 each, in constant memory.

    `frame_count` is how many files the folder or packets the video has, `stems` the file names without suffix of a
    folder's frames (empty for a video), `frame_rate` in frames per second. `cuts` are the places of the frames in
    front of which numbers are missing: no window may reach across. `film` is set for a video. Reading raises
    `InvalidFileError` for a frame that cannot be read or has another size than the first.
    """

    source: Path
    frame_count: int
    height: int
    width: int
    frame_rate: float
    stems: tuple[str, ...]
    open: Callable[[], Iterable[tuple[Tensor, Span | None]]]
    cuts: tuple[int, ...] = ()
    film: Film | None = None

    def __len__(self) -> int:
        return self.frame_count

    def __iter__(self) -> Iterator[Tensor]:
        return (frame for frame, _ in self.timed())

    def timed(self) -> Iterator[tuple[Tensor, Span | None]]:
        """The frames, and when a video shows them."""
        for index, (frame, span) in enumerate(self.open()):
            where = f"{self.source}: frame {self.stems[index] if self.stems else index}"
            yield _sized(frame, (self.height, self.width), where), span


def iterate_frames(source: str | Path) -> FrameStream:
    """Open a folder of numbered images, a video file or one image. Raises `InvalidFileError`; for videos, `ConfigError`
    if PyAV is missing."""
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
    """Frames `start:stop:step` of a folder, a video file or one image: (frames, 3, height, width) uint8.

    Raises `InvalidFileError` as `iterate_frames` does, `ConfigError` where the range holds no frame of the clip.
    """
    if start < 0 or step < 1 or (stop is not None and stop <= start):
        raise ConfigError(f"frames {start}:{stop}:{step}: expected 0 <= start < stop and a step of 1 or more")
    path = Path(source)
    if path.is_dir():
        chosen = list(numbered_files(path).values())[start:stop:step]
        frames = list(_alike(chosen)) if chosen else []
    else:
        frames = list(itertools.islice(iterate_frames(path), start, stop, step))
    if not frames:
        raise ConfigError(f"{path}: no frame in {start}:{stop}: the clip is shorter")
    return torch.stack(frames)


def read_image(path: str | Path) -> Tensor:
    """One 8-bit image, upright, as RGB, (3, height, width) uint8. Raises `InvalidFileError`."""
    return torch.from_numpy(np.array(read_upright(path))).permute(2, 0, 1).contiguous()


def numbered_files(folder: str | Path) -> dict[int, Path]:
    """The images of a folder by the last integer in their names, ascending; other and hidden files are ignored.

    Raises `InvalidFileError` for a missing or empty folder, and for names without a number or with equal ones.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InvalidFileError(f"{path}: no such folder or file; expected a folder of numbered images or a video")
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
        raise InvalidFileError(f"{where}: {width}x{height}; expected {size[1]}x{size[0]} as the clip's first frame")
    return frame
