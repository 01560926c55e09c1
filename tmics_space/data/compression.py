"""Artefacts of lossy files on frames: JPEG by Pillow, H.264 by PyAV."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tmics_space.data.video import ACCURATE, require_av

_BLOCK = 16  # side of a block of JPEG with halved colours, in px
# Without the look-ahead, which on narrow frames reads memory that it has not written: equal frames, other bytes.
_X264 = {"preset": "veryfast", "x264-params": "rc-lookahead=0:mbtree=0"}
_FILMS = 0.1  # share of the windows with H.264, which costs five times as much, beside JPEG
_RATE = 25  # frames per second of a film
_SHEET = 4096  # greatest height of a JPEG file with several frames

Range: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Compression:
    """Lossy files that frames have been through."""

    jpeg: Range | None = None
    """Least and greatest quality."""
    h264: Range | None = None
    """Least and greatest constant rate factor. With `jpeg`, it has one window of ten."""
    clean: float = 0.0
    """Share in which the clean frames have been through such a file, too."""

    def __bool__(self) -> bool:
        return self.jpeg is not None or self.h264 is not None

    def apply(self, rainy: Tensor, clean: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw the kind of file and its quality, and apply it to frames `(frames, 3, height, width)` uint8."""
        film = self.h264 is not None and (self.jpeg is None or rng.random() < _FILMS)
        bounds = self.h264 if film else self.jpeg
        if bounds is None:
            return rainy, clean
        quality, write = int(rng.integers(bounds[0], bounds[1] + 1)), h264 if film else jpeg
        return write(rainy, quality), write(clean, quality) if rng.random() < self.clean else clean


NO_COMPRESSION = Compression()


def jpeg(frames: Tensor, quality: int) -> Tensor:
    """Write and read frames as JPEG with 4:2:0 colours.

    Args:
        frames: `(frames, 3, height, width)` uint8.
        quality: of libjpeg, 1 to 95.

    Returns:
        Frames of the same shape.
    """
    height = frames.shape[2]
    below = _BLOCK - height % _BLOCK  # so that colours of one frame reach no other
    padded = F.pad(frames, (0, 0, _BLOCK, below), mode="replicate")
    read = [_jpeg(part, quality) for part in torch.split(padded, max(_SHEET // padded.shape[2], 1))]
    return torch.cat(read)[:, :, _BLOCK : _BLOCK + height]


def _jpeg(frames: Tensor, quality: int) -> Tensor:
    """Write frames below each other as one file, since a file of a small frame is mostly overhead."""
    sheet = frames.permute(0, 2, 3, 1).reshape(-1, frames.shape[3], 3).numpy()
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file) as image:
        read = torch.from_numpy(np.array(image))
    return read.view(len(frames), frames.shape[2], -1, 3).permute(0, 3, 1, 2)


def h264(frames: Tensor, crf: int) -> Tensor:
    """Write and read frames as a film in H.264 with 4:2:0 colours.

    Args:
        frames: `(frames, 3, height, width)` uint8.
        crf: constant rate factor of x264, 0 (lossless) to 51.

    Returns:
        Frames of the same shape.

    Raises:
        MissingPackageError: PyAV is not installed (extra `video`).
    """
    av = require_av()
    height, width = frames.shape[-2:]
    whole = F.pad(frames, (0, -width % _BLOCK, 0, -height % _BLOCK), mode="replicate")
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=_RATE, options={"crf": str(crf), **_X264})
        stream.height, stream.width = whole.shape[-2:]
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        for number, frame in enumerate(whole.permute(0, 2, 3, 1).contiguous().numpy()):
            picture = av.VideoFrame.from_ndarray(frame, "rgb24").reformat(format="yuv420p", interpolation=ACCURATE)
            picture.pts, picture.time_base = number, Fraction(1, _RATE)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        decoded = container.decode(video=0)
        read = [frame.to_ndarray(format="rgb24", interpolation=ACCURATE).copy() for frame in decoded]
    return torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2)[..., :height, :width]
