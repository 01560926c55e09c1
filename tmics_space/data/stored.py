"""Clips that stay on disk: their frames are read when they are asked for, and kept while there is room."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from nas.errors import InvalidFileError
from nas.imagefiles import upright_size
from tmics_space.data.frames import read_image

CACHE = 2**30
"""Bytes of frames that a data set keeps in memory."""

Read = Callable[[Path], Tensor]


@dataclass(frozen=True, eq=False)
class StoredFrames:
    """Images of one size, in the order given, that are read as they are indexed: `frames[2:5]` and `frames[[0, 1, 0]]`
    are tensors (frames, 3, height, width) uint8.

    `crop` cuts height and width, at the bottom and the right, to multiples of it. Making one reads the head of every
    file, so that `InvalidFileError` comes now for one that is missing, no image, or of another size than the first;
    a file that is damaged further on is found when its turn comes.
    """

    files: tuple[Path, ...]
    crop: int = 1
    read: Read = read_image

    def __post_init__(self) -> None:
        self._require(self.files[1:], self.files[0])

    def require_like(self, other: StoredFrames) -> None:
        """Raise `InvalidFileError` where the frames of `other` have another size."""
        self._require(self.files[:1], other.files[0])

    def _require(self, files: Sequence[Path], like: Path) -> None:
        height, width = upright_size(like)
        for file in files:
            if (found := upright_size(file)) != (height, width):
                raise InvalidFileError(f"{file}: {found[1]}x{found[0]}; expected {width}x{height} as {like}")

    @functools.cached_property
    def shape(self) -> torch.Size:
        """(frames, 3, height, width)"""
        return torch.Size((len(self.files), 3, *(side - side % self.crop for side in upright_size(self.files[0]))))

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Tensor]:
        return map(self._frame, self.files)

    def __getitem__(self, which: slice | Sequence[int]) -> Tensor:
        files = self.files[which] if isinstance(which, slice) else [self.files[index] for index in which]
        return torch.stack([self._frame(file) for file in files])

    def _frame(self, file: Path) -> Tensor:
        height, width = self.shape[2:]
        return self.read(file)[:, :height, :width]


Frames: TypeAlias = Tensor | StoredFrames
"""(frames, 3, height, width) uint8; of either kind `frames[:]` is a tensor."""


def cached(like: Path) -> Read:
    """`read_image` that keeps the images it has returned last, as many as `CACHE` holds of the size of `like`."""
    height, width = upright_size(like)
    return functools.lru_cache(max(CACHE // (3 * height * width), 1))(read_image)
