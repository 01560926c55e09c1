"""Data sets in the IDX format, such as MNIST (LeCun et al., 1998) and Fashion-MNIST (Xiao et al., 2017)."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor

from nas.errors import InvalidFileError
from search_spaces.classification.images import Images


class IDX(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="idx"):
    """A folder with `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same of `t10k`, compressed or not."""

    root: str

    def load(self) -> tuple[Images, Images]:
        """Load the images for training and for the test; the names of classes are numbers.

        Raises:
            InvalidFileError: a file is missing, cannot be read or does not match.
        """
        train, test = (self._part(part) for part in ("train", "t10k"))
        count = 1 + int(max(labels.max() for _, labels in (train, test)))
        classes = tuple(str(label) for label in range(count))
        return Images(*train, classes), Images(*test, classes)

    def _part(self, part: str) -> tuple[Tensor, Tensor]:
        images, labels = _find(self.root, f"{part}-images", 3), _find(self.root, f"{part}-labels", 1)
        pixels, numbers = _read(images, 3), _read(labels, 1).long()
        if len(pixels) != len(numbers) or not len(pixels):
            raise InvalidFileError(
                f"{labels}: must have one label for each image of {images.name}, got {len(numbers)} labels for"
                f" {len(pixels)} images"
            )
        return pixels.unsqueeze(1), numbers


def _find(root: str, name: str, dimensions: int) -> Path:
    names = [f"{name}{dash}idx{dimensions}-ubyte{suffix}" for dash in "-." for suffix in ("", ".gz")]
    found = [path for path in (Path(root, name) for name in names) if path.is_file()]
    if not found:
        raise InvalidFileError(f"{root}: must have {names[0]} or {names[1]}, got neither")
    return found[0]


def _read(path: Path, dimensions: int) -> Tensor:
    """Read an IDX file of bytes: 0, 0, 8 (the type), the number of dimensions, big-endian sizes, data."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidFileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    header = 4 + 4 * dimensions
    if data[:4] != bytes((0, 0, 8, dimensions)) or len(data) < header:
        raise InvalidFileError(f"{path}: must be an IDX file of bytes in {dimensions} dimensions, got another header")
    sizes = np.frombuffer(data, ">u4", dimensions, 4).tolist()
    if len(data) != header + math.prod(sizes):
        expected = " x ".join(map(str, sizes))
        raise InvalidFileError(f"{path}: must have {expected} bytes of data, got {len(data) - header}")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=header).reshape(sizes).copy())
