"""Picture files in the shape that a task needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from nas.errors import InvalidFileError
from nas.files import listed
from nas.run.images import IMAGE_SUFFIXES, read_upright


def read_image(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """Read a picture file, turned upright, scaled to cover a shape, and cropped at the centre.

    Args:
        path: the file.
        shape: the channels, height and width of the result.

    Returns:
        A tensor `(channels, height, width)` uint8.

    Raises:
        InvalidFileError: the file is no picture that can be read.
    """
    channels, height, width = shape
    upright = read_upright(path, "L" if channels == 1 else "RGB")
    image = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).reshape(height, width, channels).permute(2, 0, 1)


def list_images(folder: Path) -> list[Path]:
    """Return the picture files in a folder, by name; raises `InvalidFileError` if there is none."""
    if folder.is_file():
        raise InvalidFileError(f"{folder} must be a folder with pictures, got a file")
    found = [path for path in listed(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        known = ", ".join(IMAGE_SUFFIXES)
        raise InvalidFileError(f"{folder} must hold pictures ({known}), got none")
    return found
