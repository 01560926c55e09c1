"""Writing clips: to a video file, a folder of PNG images or one image, each of which appears only when complete."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from nas.errors import ConfigError, InvalidFileError
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
"""How single images are written, by suffix."""

Save = Callable[[Tensor, str, Span | None], None]


class Write(Protocol):
    """Append a frame (3, height, width) uint8, of the size of the first; `stem` is its file's name in a folder, and
    counts from 00001 by default; `span` is when a video file shows it, where that is like another film."""

    def __call__(self, frame: Tensor, stem: str | None = None, span: Span | None = None) -> None: ...


@contextmanager
def write_frames(target: str | Path, frame_rate: float = FRAME_RATE, like: Film | None = None) -> Iterator[Write]:
    """Write a clip: `with write_frames("out.mp4", 30) as write: write(frame)`.

    A target with a suffix is a video file (.mp4, .mov, .m4v, .avi; .mkv is lossless) or one image (.png, .jpg, .bmp,
    .tif, .webp), one without is a folder of PNG images. Frames go to a temporary neighbour that is renamed when the
    block ends and removed when it fails. A video file takes the sound of `like`, and shows frames when their spans say.
    Before the first frame, raises `InvalidFileError` for a target that exists or cannot be written, `ConfigError` for
    an unknown suffix, and for a video file that cannot be `like` that film.
    """
    path = Path(target)
    suffix = path.suffix.lower()
    if suffix and suffix not in (*VIDEO_SUFFIXES, *PICTURES):
        known = ", ".join((*VIDEO_SUFFIXES, *PICTURES))
        raise ConfigError(f"{path}: cannot write '{path.suffix}'; expected {known}, or a folder: a name without a dot")
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
                    raise ConfigError(f"{path}: frame {count} is {found}; expected torch.uint8 {tuple(size)}")
                with _writing(path):
                    save(frame.detach().cpu(), stem or f"{count:05d}", span)

            try:
                yield write
            except BaseException:
                with suppress(OSError, ValueError):  # on a full disk, or without a head, there is no end to write
                    stack.close()
                raise
            with _writing(path):  # the end of a video file is written now: the disk may be full
                stack.close()
        if not count:
            raise InvalidFileError(f"{path}: no frame was written")
        with _writing(path):
            part.replace(path)
    except BaseException:
        _remove(part)
        raise


def require_room(target: str | Path, frames: int) -> None:
    """Raise `ConfigError` if a target has no room for so many frames, because it is an image."""
    if frames > 1 and Path(target).suffix.lower() in PICTURES:
        raise ConfigError(f"{target}: is one image, but there are more frames; write to a folder or a video file")


def _prepare(path: Path, *, file: bool) -> Path:
    with _writing(path):
        if path.is_file() or (path.is_dir() and (file or any(path.iterdir()))):
            raise InvalidFileError(f"{path}: exists already; remove it or write to another name")
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
    except OSError as error:  # PyAV's are of this class too
        raise InvalidFileError(f"{path}: cannot be written: {error.strerror or error}") from error
