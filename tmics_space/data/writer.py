"""Writing clips: to a video file or a folder of PNG images, which appear under their name only when complete."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from nas.errors import ConfigError, InvalidFileError
from tmics_space.data.frames import FRAME_RATE
from tmics_space.data.video import VIDEO_SUFFIXES, encode_video


class Write(Protocol):
    """Append a frame (3, height, width) uint8, of the size of the first; `stem` is its file's name in a folder, and
    counts from 00001 by default."""

    def __call__(self, frame: Tensor, stem: str | None = None) -> None: ...


@contextmanager
def write_frames(target: str | Path, frame_rate: float = FRAME_RATE) -> Iterator[Write]:
    """Write a clip: `with write_frames("out.mp4", 30) as write: write(frame)`.

    A target with a suffix is a video file (.mp4, .mov, .m4v, .avi; .mkv is lossless), one without is a folder of PNG
    images. Frames go to a temporary neighbour that is renamed when the block ends and removed when it fails. Before
    the first frame, raises `InvalidFileError` for a target that exists or cannot be written, `ConfigError` for an
    unknown suffix.
    """
    path = Path(target)
    video = bool(path.suffix)
    if video and path.suffix.lower() not in VIDEO_SUFFIXES:
        known = ", ".join(VIDEO_SUFFIXES)
        raise ConfigError(f"{path}: cannot write '{path.suffix}'; expected {known}, or a folder: a name without a dot")
    part = _prepare(path, video)
    size: torch.Size | None = None
    count = 0
    try:
        with ExitStack() as stack:
            with _writing(path):
                save = stack.enter_context(encode_video(part, frame_rate)) if video else _save_in(part)

            def write(frame: Tensor, stem: str | None = None) -> None:
                nonlocal size, count
                size, count = size or frame.shape, count + 1
                if frame.dtype != torch.uint8 or frame.shape != size or len(size) != 3 or size[0] != 3:
                    found = f"{tuple(frame.shape)} {frame.dtype}"
                    raise ConfigError(f"{path}: frame {count} is {found}; expected torch.uint8 {tuple(size)}")
                with _writing(path):
                    save(frame.detach().cpu(), stem or f"{count:05d}")

            try:
                yield write
            except BaseException:
                with suppress(OSError):  # on a full disk the end cannot be written either
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


def _prepare(path: Path, video: bool) -> Path:
    with _writing(path):
        if path.is_file() or (path.is_dir() and (video or any(path.iterdir()))):
            raise InvalidFileError(f"{path}: exists already; remove it or write to another name")
        part = path.absolute().with_name(f".{path.stem}.part{path.suffix}")  # `.` has no name of its own
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(part)
        part.touch() if video else part.mkdir()
    return part


def _save_in(folder: Path) -> Callable[[Tensor, str], None]:
    def save(frame: Tensor, stem: str) -> None:
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(folder / f"{stem}.png")

    return save


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
