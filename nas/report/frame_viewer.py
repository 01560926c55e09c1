"""Previews of a task for a page: one WebP picture per layer, with all frames below one another."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from nas.run.task import Preview

BYTES = 1_300_000
"""Bytes of all pictures of a page, at most. Encoding as text then makes them a third larger."""
TALLEST = 16_383
"""Rows of a WebP picture, at most."""


class Viewer(NamedTuple):
    """A preview, ready for the page."""

    title: str
    layers: dict[str, str]
    """Pictures with all frames as data URIs, by layer; at least one."""
    frames: int
    height: int
    width: int
    """Width of one frame in pixels, like `height`."""
    frame_rate: float


def viewers(previews: Sequence[Preview]) -> list[Viewer]:
    """Return the previews as pictures of at most `BYTES` bytes in total."""
    count = sum(len(preview.layers) for preview in previews)
    return [_viewer(preview, BYTES // count) for preview in previews]


def _viewer(preview: Preview, room: int) -> Viewer:
    length, _, height, width = next(iter(preview.layers.values())).shape
    frames = min(length, TALLEST // height)
    while True:  # halve the frames if even the lowest quality needs too many bytes
        each = {name: packed(layer[:frames], room) for name, layer in preview.layers.items()}
        if all(each.values()) or frames == 1:
            layers = {name: data_uri(data) for name, data in each.items()}
            return Viewer(preview.title, layers, frames, height, width, preview.frame_rate)
        frames = (frames + 1) // 2


def data_uri(webp: bytes) -> str:
    """Return a WebP picture as a data URI."""
    return "data:image/webp;base64," + base64.b64encode(webp).decode()


def packed(frames: Tensor, room: int) -> bytes:
    """Return frames `(frames, 3, height, width)` below one another, as WebP.

    The quality is the best of a few with at most `room` bytes; nothing is returned if none fits.
    """
    rows = frames.permute(0, 2, 3, 1).flatten(0, 1).contiguous()
    image = Image.fromarray(rows.cpu().numpy())
    for quality in (90, 80, 65, 45, 20):
        file = io.BytesIO()
        image.save(file, "WEBP", quality=quality, method=2)
        if file.tell() <= room:
            return file.getvalue()
    return b""
