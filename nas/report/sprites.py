"""Previews of a task as data in the page: the frames of each layer below one another in one WebP picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from nas.task import Preview

BYTES = 1_300_000
"""The most bytes of all pictures of a page, before their encoding as text makes them a third larger."""
TALLEST = 16_383
"""The most rows that WebP holds."""


class Viewer(NamedTuple):
    """A preview, ready for the page."""

    title: str
    layers: dict[str, str]
    """Pictures of all frames as data URIs, by name; at least one."""
    frames: int
    height: int
    width: int
    """Of one frame, in pixels."""
    frame_rate: float


def viewers(previews: Sequence[Preview]) -> list[Viewer]:
    """The previews as pictures of `BYTES` in all at most."""
    count = sum(len(preview.layers) for preview in previews)
    return [_viewer(preview, BYTES // count) for preview in previews]


def _viewer(preview: Preview, room: int) -> Viewer:
    length, _, height, width = next(iter(preview.layers.values())).shape
    frames = min(length, TALLEST // height)
    while True:  # fewer frames, where even the lowest quality takes too much room
        packed = {name: _packed(layer[:frames], room) for name, layer in preview.layers.items()}
        if all(packed.values()) or frames == 1:
            layers = {
                name: "data:image/webp;base64," + base64.b64encode(data).decode() for name, data in packed.items()
            }
            return Viewer(preview.title, layers, frames, height, width, preview.frame_rate)
        frames = (frames + 1) // 2


def _packed(frames: Tensor, room: int) -> bytes:
    """The frames (frames, 3, height, width) in the best quality that the room allows; nothing where none does."""
    rows = frames.permute(0, 2, 3, 1).flatten(0, 1).contiguous()
    image = Image.fromarray(rows.cpu().numpy())
    for quality in (90, 80, 65, 45, 20):
        file = io.BytesIO()
        image.save(file, "WEBP", quality=quality, method=2)
        if file.tell() <= room:
            return file.getvalue()
    return b""
