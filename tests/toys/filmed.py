"""Video files and images as cameras write them: with a clock of their own, with sound, with more bits."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

RATE = 48_000
"""of the sound, in samples per second"""


def film(
    path: Path,
    frames: Sequence[NDArray[np.uint8]],
    times: Sequence[int],
    time_base: Fraction = Fraction(1, 1000),
    *,
    codec: str = "libx264",
    sound: str | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write frames (height, width, 3) that are shown at `times`, each until the next, in units of `time_base` seconds;
    the last one as long as the one before it. `sound` is the codec of a tone from the first to the last."""
    lengths = [after - before for before, after in zip(times, [*times[1:], 2 * times[-1] - times[-2]], strict=True)]
    with av.open(str(path), "w", options=options or {}) as container:
        video = container.add_stream(codec, rate=25)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        video.codec_context.time_base = time_base
        audio = container.add_stream(sound, rate=RATE) if sound else None
        if audio is not None:
            audio.layout = "mono"
        played = round(times[0] * time_base * RATE)
        for pixels, time, length in zip(frames, times, lengths, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format=video.pix_fmt)
            frame.pts, frame.time_base, frame.duration = time, time_base, length
            container.mux(video.encode(frame))
            while audio is not None and played < (time + length) * time_base * RATE:
                tone = np.sin(np.arange(played, played + 960) / 20).astype(np.float32)
                part = av.AudioFrame.from_ndarray(tone[None] / 4, "fltp", "mono")
                part.sample_rate, part.pts, part.time_base = RATE, played, Fraction(1, RATE)
                container.mux(audio.encode(part))
                played += 960
        container.mux(video.encode(None))
        if audio is not None:
            container.mux(audio.encode(None))
    return path


def heard(path: Path) -> tuple[str, list[bytes], list[Fraction]]:
    """The codec of a film's sound, its packets, and when each of them is heard, in seconds."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
        codec = container.streams.audio[0].codec_context.name
        return codec, [bytes(packet) for packet in packets], [packet.pts * packet.time_base for packet in packets]


def png48(path: Path, height: int = 2, width: int = 3) -> Path:
    """An image of 16 bits per colour, which Pillow cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    rows = zlib.compress((b"\0" + bytes(range(6 * width))) * height)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path
