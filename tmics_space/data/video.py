"""Video files through PyAV, an optional package (extra `video`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nas.errors import ConfigError, InvalidFileError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".m4v", ".avi")
"""of the video files that can be written; any that FFmpeg knows can be read"""

_ACCURATE = 4 | 0x2000 | 0x40000 | 0x80000
"""FFmpeg's bicubic, full chroma, accurate rounding, bit-exact: its shortcuts darken a picture by more than 1 of 255"""

_BT601 = 6  # FFmpeg's SMPTE170M: the matrix its scaler writes, so players must be told of it


def probe_video(path: Path) -> tuple[int, int, int, float]:
    """(frames, height, width, frames per second) as the container states them, of the upright picture.

    Raises `InvalidFileError` for a file without readable video, `ConfigError` where PyAV is missing.
    """
    with _open(path) as container:
        stream = container.streams.video[0]
        count, rate = stream.frames, stream.average_rate
        first = next(container.decode(stream), None)
        if first is None:
            raise InvalidFileError(f"{path}: a video without frames")
        _, height, width = _tensor(first).shape
    if not count:  # Matroska does not state it: count packets, which needs no decoding
        with _open(path) as container:
            count = sum(1 for packet in container.demux(container.streams.video[0]) if packet.size)
    return count, height, width, float(rate or 25)


def decode_video(path: Path) -> Iterator[Tensor]:
    """The frames of a video, upright, (3, height, width) uint8 each. Raises as `probe_video`."""
    with _open(path) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(container.streams.video[0]):
            yield _tensor(frame)


@contextmanager
def encode_video(path: Path, frame_rate: float) -> Iterator[Callable[[Tensor, str], None]]:
    """A function that appends a frame (3, height, width) uint8 to a new video file, which is complete at the end.

    `.mkv` is lossless (FFV1, RGB); the others are H.264, or MPEG-4 where FFmpeg was built without it.
    """
    av = _av()
    lossless = path.suffix.lower() == ".mkv"
    codec = "ffv1" if lossless else "libx264" if "libx264" in av.codecs_available else "mpeg4"
    options = {"libx264": {"crf": "16"}, "mpeg4": {"qscale": "2", "flags": "+qscale"}, "ffv1": {}}[codec]
    with av.open(str(path), mode="w") as container:
        stream: VideoStream | None = None

        def write(frame: Tensor, stem: str) -> None:
            nonlocal stream
            height, width = frame.shape[1:]
            if stream is None:
                stream = container.add_stream(codec, Fraction(frame_rate).limit_denominator(10_000), options)
                stream.width, stream.height = width, height
                even = height % 2 == 0 and width % 2 == 0
                stream.pix_fmt = "bgr0" if lossless else "yuv420p" if even else "yuv444p"
                if not lossless:
                    stream.codec_context.colorspace = _BT601
            pixels = np.ascontiguousarray(frame.permute(1, 2, 0).numpy())
            picture = av.VideoFrame.from_ndarray(pixels, "rgb24")
            container.mux(stream.encode(picture.reformat(format=stream.pix_fmt, interpolation=_ACCURATE)))

        yield write
        if stream is not None:
            container.mux(stream.encode(None))


@contextmanager
def _open(path: Path) -> Iterator[InputContainer]:
    av = _av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InvalidFileError(f"{path}: holds no video; expected a video file or a folder of images")
            yield container
    except av.FFmpegError as error:
        raise InvalidFileError(f"{path}: not a readable video ({error.strerror})") from error


def _av() -> ModuleType:
    try:
        import av
    except ImportError as error:
        message = "video files need the package 'av': pip install 'tmics-nas[video]'"
        raise ConfigError(message) from error
    return av


def _tensor(frame: VideoFrame) -> Tensor:
    pixels = np.rot90(frame.to_ndarray(format="rgb24", interpolation=_ACCURATE), frame.rotation // 90)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
