"""Video files through PyAV, an optional package (extra `video`)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from nas.errors import ConfigError, InvalidFileError, MissingPackageError
from tmics_space.data.container import stated_size

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".m4v", ".avi")
"""The suffixes of video files that can be written; every format of FFmpeg can be read."""

READ_SUFFIXES = (*VIDEO_SUFFIXES, ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".gif")
"""The suffixes of files that count as video files in a folder."""

ACCURATE = 4 | 0x2000 | 0x40000 | 0x80000
"""FFmpeg's bicubic, full chroma, accurate rounding, bit-exact: faster modes darken a picture by more than 1 of 255."""

_STATE_THEIR_LENGTH = ("mov", "matroska", "avi")
"""FFmpeg's names of the containers that state their duration; FFmpeg estimates that of others."""

_FINEST = {"libx264": Fraction(1, 10**8), "ffv1": Fraction(1, 10**8), "mpeg4": Fraction(1, 60_000)}
"""The finest time base that an encoder accepts, in seconds."""

_SHORTEST = Fraction(1, 240)
"""The shortest duration of a frame in an AVI file, in seconds."""

_BT601 = 6  # FFmpeg's SMPTE170M, the matrix of its scaler, which the file must state for players


class Span(NamedTuple):
    """The time at which a frame is shown, on the clock of its film."""

    start: Fraction
    """In seconds."""
    length: Fraction
    """The duration in seconds, 0 if unknown."""


class Film(NamedTuple):
    """A video file and its properties, upright."""

    path: Path
    frame_count: int
    height: int
    width: int
    frame_rate: float
    """In frames per second; the mean if not `steady`."""
    steady: bool
    """Whether each frame is shown within half a frame of its time at a constant rate."""
    step: Fraction
    """The shortest time between two frames, in seconds."""
    time_base: Fraction
    """The unit of its clock, in seconds."""
    aspect: Fraction
    """The width of a pixel divided by its height."""
    late: Fraction
    """The start of the third frame from the end, in seconds; a decoder that stops earlier reports a damaged file."""
    begin: Fraction
    """The start of its clock in seconds, at least 0; the clock of a recorded broadcast can start later."""
    clocked: bool
    """Whether its packets carry the times of frames; those of AVI files only have an order."""


def probe_video(path: Path) -> Film:
    """Read the properties of a video file from its packets and its first frame.

    Args:
        path: of the file.

    Returns:
        The properties.

    Raises:
        InvalidFileError: the file has no readable video, or is truncated.
        MissingPackageError: PyAV is not installed.
    """
    with _open(path) as container:
        stream = container.streams.video[0]
        first = next(container.decode(stream), None)
        if first is None:
            raise InvalidFileError(f"{path}: a video without frames{_cut(path)}")
        _, height, width = _tensor(first).shape
        aspect, rate = stream.sample_aspect_ratio or Fraction(1), stream.average_rate or Fraction(25)
        clock, clocked = stream.time_base or 1 / rate, _clocked(container)
        begin = Fraction(max(container.start_time or 0, 0), 10**6)
    starts = _starts(path)
    count = len(starts)
    mean = (starts[-1] - starts[0]) / max(count - 1, 1)
    return Film(
        path=path,
        frame_count=count,
        height=height,
        width=width,
        frame_rate=float(rate),
        steady=all(abs(start - starts[0] - number * mean) <= mean / 2 for number, start in enumerate(starts)),
        step=min((after - before for before, after in itertools.pairwise(starts)), default=1 / rate),
        time_base=clock,
        aspect=1 / aspect if first.rotation % 180 else aspect,
        late=starts[max(count - 3, 0)],
        begin=begin,
        clocked=clocked,
    )


def decode_video(film: Film) -> Iterator[tuple[Tensor, Span | None]]:
    """Decode the frames of a video, upright.

    Args:
        film: to decode.

    Yields:
        A frame `(3, height, width)` uint8, and the time at which it is shown, None if the file does not state it.

    Raises:
        InvalidFileError: a frame cannot be decoded; the message has its number.
    """
    count, shown = 0, film.late
    order = None if film.clocked else iter(_starts(film.path))
    with _open(film.path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        frames = container.decode(stream)
        while (frame := _next(frames, f"{film.path}: frame {count}")) is not None:
            count += 1
            base, pts = frame.time_base or film.time_base, frame.pts
            start = None if pts is None else pts * base
            if order is not None:
                start = next(order, None)
            shown = shown if start is None else start
            yield _tensor(frame), None if start is None else Span(start, (frame.duration or 0) * base)
    if shown < film.late:
        raise InvalidFileError(f"{film.path}: frame {count}: cannot be decoded, nor any after it: the file is damaged")


@contextmanager
def encode_video(
    path: Path, frame_rate: float, like: Film | None = None
) -> Iterator[Callable[[Tensor, str, Span | None], None]]:
    """Write a video file; it is complete at the end of the context.

    `.mkv` is lossless (FFV1, RGB). Other formats use H.264, or MPEG-4 if FFmpeg has no H.264.

    Args:
        path: of the new file.
        frame_rate: in frames per second, without `like`.
        like: a film whose sound is copied; frames then have the times of their spans.

    Yields:
        A function that appends a frame `(3, height, width)` uint8.

    Raises:
        ConfigError: the container cannot hold these times or this sound.
    """
    av = require_av()
    lossless, avi = path.suffix.lower() == ".mkv", path.suffix.lower() == ".avi"
    codec = "ffv1" if lossless else "libx264" if "libx264" in av.codecs_available else "mpeg4"
    options = {"libx264": {"crf": "16"}, "mpeg4": {"qscale": "2", "flags": "+qscale"}, "ffv1": {}}[codec]
    clock = None if like is None else max(like.time_base, _FINEST[codec])
    begin = Fraction(0) if like is None else like.begin
    rate = Fraction(frame_rate).limit_denominator(10_000)
    if avi and like is not None:  # AVI shows frames at multiples of one duration
        clock = None if like.steady else max(like.step, _SHORTEST)
        rate = 1 / clock if clock is not None else rate
    if avi or (like is not None and not like.steady):
        options |= {"bf": "0"}  # no reordering: AVI does not support it, and the last times would be wrong
    with av.open(str(path), mode="w") as container, ExitStack() as stack:
        stream: VideoStream = container.add_stream(codec, rate, options)
        sound = None
        if like is not None:
            sound = _Sound(stack.enter_context(av.open(str(like.path))), container, like.begin)
        count = last = 0

        def write(frame: Tensor, stem: str, span: Span | None = None) -> None:
            nonlocal count, last
            height, width = frame.shape[1:]
            if not stream.codec_context.is_open:
                stream.width, stream.height = width, height
                even = height % 2 == 0 and width % 2 == 0
                stream.pix_fmt = "bgr0" if lossless else "yuv420p" if even else "yuv444p"
                if clock is not None:
                    stream.codec_context.time_base = clock
                if like is not None:
                    stream.codec_context.sample_aspect_ratio = like.aspect
                if not lossless:
                    stream.codec_context.colorspace = _BT601
                if sound is not None:
                    sound.begin()
            pixels = np.ascontiguousarray(frame.permute(1, 2, 0).numpy())
            picture = av.VideoFrame.from_ndarray(pixels, "rgb24")
            picture = picture.reformat(format=stream.pix_fmt, interpolation=ACCURATE)
            start, length = span or (begin + count / rate, 1 / rate)
            if clock is not None:
                time = round(start / clock) - round(begin / clock)
                last = max(time, last + 1) if count else time  # times must be distinct
                picture.time_base, picture.pts, picture.duration = clock, last, round(length / clock)
            count += 1
            container.mux(stream.encode(picture))
            if sound is not None:
                sound.copy(until=start)

        yield write
        if stream.codec_context.is_open:
            container.mux(stream.encode(None))
            if sound is not None:
                sound.copy()


class _Sound:
    """Copies the sound of one film into another, packet by packet, earlier by `begin` seconds."""

    def __init__(self, source: InputContainer, sink: OutputContainer, begin: Fraction) -> None:
        self._source, self._sink, self._begin = source, sink, begin
        streams = source.streams.audio
        try:
            self._streams = {stream.index: sink.add_stream_from_template(stream) for stream in streams}
        except ValueError as error:
            raise self._refused() from error
        self._packets = source.demux(*streams) if streams else iter(())
        self._waiting: Packet[Any] | None = None

    def begin(self) -> None:
        """Write the header of the new film; raises `ConfigError` if its format cannot hold the sound."""
        try:
            self._sink.start_encoding()
        except ValueError as error:
            if not self._streams:
                raise
            raise self._refused() from error

    def copy(self, until: Fraction | None = None) -> None:
        """Copy the packets that begin before `until`, in seconds of their film, or all remaining ones."""
        while (packet := self._waiting or _next(self._packets, f"{self._source.name}: its sound")) is not None:
            self._waiting = packet
            if packet.dts is not None and packet.time_base is not None:  # else it is the end marker
                if until is not None and packet.dts * packet.time_base >= until:
                    return
                shift = round(self._begin / packet.time_base)
                packet.dts -= shift
                packet.pts = None if packet.pts is None else packet.pts - shift
                packet.stream = self._streams[packet.stream_index]
                self._sink.mux(packet)
            self._waiting = None

    def _refused(self) -> ConfigError:
        names = ", ".join(stream.codec_context.name for stream in self._source.streams.audio)
        suffix = Path(self._sink.name).suffix
        return ConfigError(f"{suffix} cannot hold the sound of {self._source.name} ({names}). Write to a .mkv file")


def _starts(path: Path) -> list[Fraction]:
    """Return the start of each frame in seconds, ascending; raises `InvalidFileError` if the file ends too early."""
    starts: list[Fraction] = []
    end = Fraction(0)
    with _open(path) as container:
        clocked = _clocked(container)
        video, packets = container.streams.video[0].index, container.demux()
        while (packet := _next(packets, f"{path}: frame {len(starts)}")) is not None:
            if packet.size and not packet.is_discard:
                base = packet.time_base or Fraction(0)
                time = packet.pts if clocked and packet.pts is not None else packet.dts
                start = (time or 0) * base
                end = max(end, start + (packet.duration or 0) * base)
                if packet.stream_index == video:
                    starts.append(start)
        whole = container.duration if container.format.name.startswith(_STATE_THEIR_LENGTH) else None
    starts.sort()
    where = f"{path}: frame {len(starts)}: the film stops here"
    if cut := _cut(path):
        copy = f"ffmpeg -i {path.name} -c copy rest{path.suffix}"
        raise InvalidFileError(f"{where}{cut}. Get the whole file, or keep the readable part with `{copy}`")
    longest = max((after - before for before, after in itertools.pairwise(starts)), default=Fraction(0))
    if whole is not None and end + longest < Fraction(9, 10) * whole / 10**6:  # the last frame can last long
        raise InvalidFileError(f"{where}, after {float(end):.2f} of {whole / 10**6:.2f} s: the file is damaged")
    return starts


def _clocked(container: InputContainer) -> bool:
    """Return whether packets carry the times of frames; those of AVI files only have an order."""
    return container.format.name != "avi"


def _cut(path: Path) -> str:
    """Describe a truncated file; empty if the file is at least as large as it states."""
    found, stated = path.stat().st_size, stated_size(path)
    whole = stated is None or stated <= found
    return "" if whole else f": the file must have at least {stated:,} bytes, got {found:,}"


T = TypeVar("T")


def _next(items: Iterator[T], where: str) -> T | None:
    """Return the next frame or packet, None at the end; raises `InvalidFileError` with `where` in front."""
    av = require_av()
    try:
        return next(items, None)
    except av.FFmpegError as error:
        raise InvalidFileError(f"{where}: cannot be decoded ({error.strerror})") from error


@contextmanager
def _open(path: Path) -> Iterator[InputContainer]:
    av = require_av()
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise InvalidFileError(f"{path}: must be a video file or a folder of images, got a file without video")
            yield container
    except av.FFmpegError as error:
        raise InvalidFileError(f"{path}: not a readable video ({error.strerror}){_cut(path)}") from error


def require_av() -> ModuleType:
    """Return the module `av`; raises `MissingPackageError`."""
    try:
        import av
    except ImportError as error:
        raise MissingPackageError("video files need the package 'av'", "video") from error
    return av


def _tensor(frame: VideoFrame) -> Tensor:
    pixels = np.rot90(frame.to_ndarray(format="rgb24", interpolation=ACCURATE), frame.rotation // 90)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
