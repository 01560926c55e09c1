"""Picture files in the shape that a task needs."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from nas.errors import InvalidFileError
from nas.files import listed, make_folder, write_atomic, writing
from nas.run.images import IMAGE_SUFFIXES, read_upright

WRITTEN_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""Suffixes of picture files that `write_image` writes, in lower case."""


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


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Return files by their names without suffixes; raises `InvalidFileError` if two have the same."""
    found: dict[str, Path] = {}
    for path in paths:
        if (other := found.setdefault(path.stem, path)) != path:
            raise InvalidFileError(
                f"{path}: names of pictures must differ before the suffix, got '{path.stem}' in {other.name} too"
            )
    return found


def write_image(path: Path, pixels: Tensor) -> None:
    """Write a picture `(3, height, width)` uint8 in the format of the suffix, one of `WRITTEN_SUFFIXES`, atomically."""
    image = Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
    kind = Image.registered_extensions()[path.suffix.lower()]
    write_atomic(path, lambda file: image.save(file, kind))


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, which is renamed to `folder` at the end, or removed if the block fails."""
    part = folder.absolute().with_name(f".{folder.name}.part")
    with writing(folder):
        try:
            shutil.rmtree(part, ignore_errors=True)
            make_folder(part)
            yield part
            part.replace(folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
