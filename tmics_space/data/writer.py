"""Writers of clips: video files, folders of PNG images and single images, which appear only when complete."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from nas.errors import ConfigError, InvalidFileError, NASError
from tmics_space.data.frames import FRAME_RATE
from tmics_space.data.video import VIDEO_SUFFIXES, Film, Span, encode_video

PICTURES: dict[str, dict[str, Any]] = {
    ".png": {},
    ".jpg": {"quality": 95, "subsampling": 0},
    ".jpeg": {"quality": 95, "subsampling": 0},
    ".bmp": {},
    ".tif": {"compression": "tiff_deflate"},
    ".tiff": {"compression": "tiff_deflate"},
    ".webp": {"lossless": True},
}
"""The options of writers of single images, by suffix."""

Save = Callable[[Tensor, str, Span | None], None]


class Write(Protocol):
    """Appends a frame `(3, height, width)` uint8 of the size of the first one.

    `stem` is the file name in a folder, by default a number from 00001. `span` is the time at which a video file shows
    the frame; it needs the argument `like` of `write_frames`.
    """

    def __call__(self, frame: Tensor, stem: str | None = None, span: Span | None = None) -> None: ...


@contextmanager
def write_frames(
    target: str | Path, frame_rate: float = FRAME_RATE, like: Film | None = None, *, folder: bool = False
) -> Iterator[Write]:
    """Write a clip: `with write_frames("out.mp4", 30) as write: write(frame)`.

    Frames go to a temporary file or folder beside the target. It is renamed at the end of the block, or removed if the
    block fails.

    Args:
        target: a video file (.mp4, .mov, .m4v, .avi; .mkv is lossless), one image (.png, .jpg, .bmp, .tif, .webp), or,
            without a suffix, a folder of PNG images.
        frame_rate: of a video file, in frames per second.
        like: a film whose sound and times of frames a video file gets.
        folder: write a folder of PNG images even if the name of the target has a suffix, such as `v1.2`.

    Yields:
        A function that appends a frame (`Write`).

    Raises:
        InvalidFileError: the target exists or cannot be written.
        ConfigError: the suffix is unknown, or the video format cannot hold the sound or times of `like`.
    """
    path = Path(target)
    suffix = "" if folder else path.suffix.lower()
    if suffix and suffix not in (*VIDEO_SUFFIXES, *PICTURES):
        known = ", ".join((*VIDEO_SUFFIXES, *PICTURES))
        raise ConfigError(f"{path}: the suffix must be one of {known}, or none for a folder, got '{path.suffix}'")
    part = _prepare(path, file=bool(suffix))
    size: torch.Size | None = None
    count = 0
    try:
        with ExitStack() as stack:
            with _writing(path):
                if suffix in VIDEO_SUFFIXES:
                    save: Save = stack.enter_context(encode_video(part, frame_rate, like))
                else:
                    save = _save_as(part, path) if suffix else _save_in(part)

            def write(frame: Tensor, stem: str | None = None, span: Span | None = None) -> None:
                nonlocal size, count
                size, count = size or frame.shape, count + 1
                if frame.dtype != torch.uint8 or frame.shape != size or len(size) != 3 or size[0] != 3:
                    found = f"{tuple(frame.shape)} {frame.dtype}"
                    raise ConfigError(f"{path}: frame {count} must be {tuple(size)} torch.uint8, got {found}")
                with _writing(path):
                    save(frame.detach().cpu(), stem or f"{count:05d}", span)

            try:
                yield write
            except BaseException:
                with suppress(OSError, ValueError):  # the end cannot be written on a full disk or without a header
                    stack.close()
                raise
            with _writing(path):  # writes the end of a video file: the disk can be full
                stack.close()
        if not count:
            raise InvalidFileError(f"{path}: must get at least one frame, got none")
        with _writing(path):
            part.replace(path)
    except BaseException:
        _remove(part)
        raise


def require_room(target: str | Path, frames: int) -> None:
    """Check that a target can hold a number of frames.

    Raises:
        ConfigError: the target is an image and there is more than one frame.
    """
    if frames > 1 and Path(target).suffix.lower() in PICTURES:
        raise ConfigError(f"{target}: one image must get one frame, got more. Write to a folder or a video file")


def _prepare(path: Path, *, file: bool) -> Path:
    with _writing(path):
        if path.is_file() or (path.is_dir() and (file or any(path.iterdir()))):
            raise InvalidFileError(f"{path}: exists already. Remove it or choose another name")
        part = path.absolute().with_name(f".{path.stem}.part{path.suffix}")  # `.` has no name of its own
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(part)
        part.touch() if file else part.mkdir()
    return part


def _save_in(folder: Path) -> Save:
    def save(frame: Tensor, stem: str, span: Span | None) -> None:
        _image(frame).save(folder / f"{stem}.png")

    return save


def _save_as(part: Path, path: Path) -> Save:
    def save(frame: Tensor, stem: str, span: Span | None) -> None:
        require_room(path, 2 if part.stat().st_size else 1)
        _image(frame).save(part, **PICTURES[path.suffix.lower()])

    return save


def _image(frame: Tensor) -> Image.Image:
    return Image.fromarray(frame.permute(1, 2, 0).numpy())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except NASError:
        raise
    except OSError as error:  # includes the errors of PyAV
        raise InvalidFileError(f"{path}: cannot be written: {error.strerror or error}") from error
