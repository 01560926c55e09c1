"""Images in memory, and reading them from picture files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from nas.errors import InvalidFileError
from nas.files import listed
from nas.imagefiles import IMAGE_SUFFIXES, read_upright


@dataclass(frozen=True, eq=False)
class Images:
    """Images and what is on them."""

    pixels: Tensor
    """(images, channels, height, width) uint8; one channel is grey, three are red, green and blue."""
    labels: Tensor
    """(images,) int64: positions in `classes`."""
    classes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width


def read_image(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """A picture file, upright, as (channels, height, width) uint8 of this shape: scaled to cover it, and cut at the
    centre. Raises `InvalidFileError` as `nas.imagefiles.read_upright` does."""
    channels, height, width = shape
    upright = read_upright(path, "L" if channels == 1 else "RGB")
    image = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).reshape(height, width, channels).permute(2, 0, 1)


def list_images(folder: Path) -> list[Path]:
    """The picture files in a folder, by name; raises `InvalidFileError` where there is none."""
    if folder.is_file():
        raise InvalidFileError(f"{folder}: not a folder; expected one with pictures in it")
    found = [path for path in listed(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        known = ", ".join(IMAGE_SUFFIXES)
        raise InvalidFileError(f"{folder}: no pictures in it; expected files that end in {known}")
    return found
