"""The size that a video file states; a truncated file is smaller."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def stated_size(path: Path) -> int | None:
    """Read the size of a video file from the sizes of its outermost parts.

    Supported are MP4 and QuickTime (ISO 14496-12, 4.2), Matroska and WebM (RFC 8794), and AVI (RIFF).

    Args:
        path: of the file.

    Returns:
        The size in bytes; None for other formats, and for files that do not state it, such as live recordings.
    """
    with path.open("rb") as file:
        head = file.read(8)
        file.seek(0)
        if head[:4] == _EBML:
            return _matroska(file)
        if head[:4] == b"RIFF":
            return _riff(file)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
            return _boxes(file)
    return None


def _matroska(file: BinaryIO) -> int | None:
    """Read a header and a segment, which holds the rest of the file."""
    while (name := file.read(4)) in (_EBML, _SEGMENT):
        first = file.read(1)
        if not first or not first[0]:
            return None
        length = 9 - first[0].bit_length()  # bytes of the size; `length - 1` zero bits precede it
        rest = file.read(length - 1)
        size = int.from_bytes(first + rest, "big") - (1 << 7 * length)
        if len(rest) < length - 1 or size == (1 << 7 * length) - 1:  # all ones: unknown
            return None
        end = file.tell() + size
        if name == _SEGMENT or end > os.fstat(file.fileno()).st_size:
            return end
        file.seek(end)
    return None


def _riff(file: BinaryIO) -> int | None:
    """Read one or more consecutive chunks; their sizes are 0 until the writer ends."""
    end = 0
    while len(head := file.read(8)) == 8 and head[:4] == b"RIFF":
        (size,) = struct.unpack("<I", head[4:])
        if not size:
            return None
        end += 8 + size + size % 2
        file.seek(end)
    return end


def _boxes(file: BinaryIO) -> int | None:
    """Read consecutive boxes; other data may follow them."""
    end = 0
    while len(head := file.read(8)) == 8 and head[4:].isascii():
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(file.read(8), "big")
        if size < 8:  # 0: up to the end of the file
            break
        end += size
        if end > os.fstat(file.fileno()).st_size:
            break
        file.seek(end)
    return end
