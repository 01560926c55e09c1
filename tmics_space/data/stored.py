"""Clips that stay on disk: frames are read at their first use and cached."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from nas.errors import InvalidFileError
from nas.run.images import upright_size
from tmics_space.data.frames import read_image
from tmics_space.data.packed import PackedFrames

CACHE = 2**30
"""The size of a data set's cache of frames, in bytes."""

Read = Callable[[Path], Tensor]


@dataclass(frozen=True, eq=False)
class StoredFrames:
    """Images of one size; indexing reads them: `frames[2:5]` is a tensor `(frames, 3, height, width)` uint8.

    Construction compares the sizes in the headers of the first and the last file, so that large data sets open fast.
    Each other file is checked when it is read.

    Args:
        files: in order.
        crop: crop height and width, at the bottom and the right, to multiples of it.
        read: reads a file.

    Raises:
        InvalidFileError: a file is missing, damaged, not an image, or of another size than the first.
    """

    files: tuple[Path, ...]
    crop: int = 1
    read: Read = read_image

    def __post_init__(self) -> None:
        self._require(self.files[-1], upright_size(self.files[-1]))

    def require_like(self, other: StoredFrames) -> None:
        """Check that the frames of `other` have the same size.

        Raises:
            InvalidFileError: the sizes differ.
        """
        other._require(self.files[0], self._size)

    def _require(self, file: Path, size: tuple[int, int]) -> None:
        if size != self._size:
            (height, width), like = self._size, self.files[0]
            raise InvalidFileError(f"{file}: must be {width}x{height} like {like}, got {size[1]}x{size[0]}")

    @functools.cached_property
    def _size(self) -> tuple[int, int]:
        return upright_size(self.files[0])

    @functools.cached_property
    def shape(self) -> torch.Size:
        """`(frames, 3, height, width)`"""
        return torch.Size((len(self.files), 3, *(side - side % self.crop for side in self._size)))

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Tensor]:
        return map(self._frame, self.files)

    def __getitem__(self, which: slice | Sequence[int]) -> Tensor:
        files = self.files[which] if isinstance(which, slice) else [self.files[index] for index in which]
        return torch.stack([self._frame(file) for file in files])

    def _frame(self, file: Path) -> Tensor:
        frame, (height, width) = self.read(file), self.shape[2:]
        self._require(file, (frame.shape[1], frame.shape[2]))
        return frame[:, :height, :width]


Frames: TypeAlias = Tensor | StoredFrames | PackedFrames
"""`(frames, 3, height, width)` uint8; `frames[:]` is a tensor for all kinds."""


def region(frames: Frames, indices: Sequence[int], top: int, left: int, height: int, width: int) -> Tensor:
    """Copy a region of some frames, `(len(indices), 3, height, width)`, and no whole frame that is in memory."""
    if isinstance(frames, PackedFrames):
        return frames.region(indices, top, left, height, width)
    part = (..., slice(top, top + height), slice(left, left + width))
    return frames[part][list(indices)] if isinstance(frames, Tensor) else frames[indices][part]


def cached(like: Path) -> Read:
    """Make a version of `read_image` with a cache of `CACHE` bytes, counted in images of the size of `like`."""
    height, width = upright_size(like)
    return functools.lru_cache(max(CACHE // (3 * height * width), 1))(read_image)
