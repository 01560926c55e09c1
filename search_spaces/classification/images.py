"""Images in memory, and reading them from picture files."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from nas.errors import InvalidFileError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")


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
    """A picture file as (channels, height, width) uint8 of this shape: scaled to cover it, and cut at the centre.

    Raises `InvalidFileError` for a file that is no picture, or one too large to be read safely.
    """
    channels, height, width = shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                image = ImageOps.exif_transpose(file).convert("L" if channels == 1 else "RGB")
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    except UnidentifiedImageError as error:
        raise InvalidFileError(f"{path}: not a picture that can be read") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidFileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return torch.from_numpy(np.array(image)).reshape(height, width, channels).permute(2, 0, 1)


def list_images(folder: Path) -> list[Path]:
    """The picture files in a folder, by name; raises `InvalidFileError` where there is none."""
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not found:
        what = "no such folder" if not folder.exists() else "no pictures in it" if folder.is_dir() else "not a folder"
        raise InvalidFileError(f"{folder}: {what}; expected a folder of files such as {', '.join(SUFFIXES[:3])}")
    return found
