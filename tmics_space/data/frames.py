"""Reading clips: folders of numbered images, video files and single photographs, whole or frame by frame."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from nas.errors import ConfigError, InvalidFileError
from tmics_space.data.video import decode_video, probe_video

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
FRAME_RATE = 25.0
"""of clips that state none, in frames per second"""

_EIGHT_BITS = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")


@dataclass(frozen=True)
class FrameStream:
    """A clip on disk. Iterating reads it from its first frame, (3, height, width) uint8 each, in constant memory.

    `frame_count` is what the folder or the container states, `stems` the file names without suffix of a folder's
    frames (empty for a video), `frame_rate` in frames per second. Reading raises `InvalidFileError` for a frame that
    cannot be read or has another size than the first.
    """

    source: Path
    frame_count: int
    height: int
    width: int
    frame_rate: float
    stems: tuple[str, ...]
    open: Callable[[], Iterable[Tensor]]

    def __len__(self) -> int:
        return self.frame_count

    def __iter__(self) -> Iterator[Tensor]:
        for index, frame in enumerate(self.open()):
            where = f"{self.source}: frame {self.stems[index] if self.stems else index}"
            yield _sized(frame, (self.height, self.width), where)


def iterate_frames(source: str | Path) -> FrameStream:
    """Open a folder of numbered images, a video file or one image. Raises `InvalidFileError`; for videos, `ConfigError`
    where PyAV is missing."""
    path = Path(source)
    if path.is_file() and path.suffix.lower() not in IMAGE_SUFFIXES:
        info = probe_video(path)
        return FrameStream(path, *info, stems=(), open=lambda: decode_video(path))
    files = [path] if path.is_file() else frame_files(path)
    _, height, width = read_image(files[0]).shape
    stems = tuple(file.stem for file in files)
    return FrameStream(path, len(files), height, width, FRAME_RATE, stems, lambda: map(read_image, files))


def read_frames(source: str | Path, start: int = 0, stop: int | None = None, step: int = 1) -> Tensor:
    """Frames `start:stop:step` of a folder, a video file or one image: (frames, 3, height, width) uint8.

    Raises `InvalidFileError` as `iterate_frames` does, `ConfigError` where the range holds no frame of the clip.
    """
    if start < 0 or step < 1 or (stop is not None and stop <= start):
        raise ConfigError(f"frames {start}:{stop}:{step}: expected 0 <= start < stop and a step of 1 or more")
    path = Path(source)
    if path.is_dir():
        chosen = frame_files(path)[start:stop:step]
        frames = list(_alike(chosen)) if chosen else []
    else:
        frames = list(itertools.islice(iterate_frames(path), start, stop, step))
    if not frames:
        raise ConfigError(f"{path}: no frame in {start}:{stop}: the clip is shorter")
    return torch.stack(frames)


def read_image(path: str | Path) -> Tensor:
    """One 8-bit image as RGB, (3, height, width) uint8. Raises `InvalidFileError`."""
    with _opened(path) as image:
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def image_size(path: str | Path) -> tuple[int, int]:
    """The (height, width) of an 8-bit image, from its head alone. Raises `InvalidFileError`."""
    with _opened(path) as image:
        return image.height, image.width


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            if image.mode not in _EIGHT_BITS:
                raise InvalidFileError(f"{path}: an image of mode '{image.mode}'; expected 8 bits per colour")
            yield image
    except FileNotFoundError as error:
        raise InvalidFileError(f"{path}: no such file; expected an image") from error
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        expected = f"a readable image ({', '.join(IMAGE_SUFFIXES)})"
        raise InvalidFileError(f"{path}: {' '.join(str(error).split())}; expected {expected}") from error


def frame_files(folder: str | Path) -> list[Path]:
    """The images of a folder in the order of the last integer in their names; other files are ignored.

    Raises `InvalidFileError` for a missing or empty folder, and for names without a number or with equal ones.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InvalidFileError(f"{path}: no such folder or file; expected a folder of numbered images or a video")
    numbered: dict[int, Path] = {}
    for file in sorted(path.iterdir()):
        if file.suffix.lower() not in IMAGE_SUFFIXES or file.name.startswith("."):
            continue
        numbers = re.findall(r"\d+", file.stem)
        if not numbers:
            raise InvalidFileError(f"{file}: no number in the name; expected frames such as 00001{file.suffix}")
        other = numbered.setdefault(int(numbers[-1]), file)
        if other != file:
            raise InvalidFileError(f"{file}: the same frame number as {other.name}; expected one file a frame")
    if not numbered:
        raise InvalidFileError(f"{path}: no image in this folder; expected {', '.join(IMAGE_SUFFIXES)} files")
    return [numbered[key] for key in sorted(numbered)]


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
