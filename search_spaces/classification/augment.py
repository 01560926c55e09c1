"""Random augmentation of training images."""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
import torch
from torch import Tensor

Pixels = Annotated[int, msgspec.Meta(ge=0)]


class Augmentation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Augmentation of training images; none by default."""

    pad: Pixels = 0
    """Black pixels added on each side before a random crop of the original size."""
    flip: bool = False
    """Whether to mirror half of the images."""
    cutout: Pixels = 0
    """Side in pixels of a square at a random centre that is set to the mean (DeVries and Taylor, 2017)."""

    def move(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Shift and mirror images `(batch, channels, height, width)` at random."""
        count, _, height, width = images.shape
        padded = torch.nn.functional.pad(images, (self.pad,) * 4)
        top, left = (torch.from_numpy(rng.integers(2 * self.pad + 1, size=(count, 1))) for _ in range(2))
        rows, columns = top + torch.arange(height), left + torch.arange(width)
        if self.flip:
            mirrored = torch.from_numpy(rng.integers(2, size=(count, 1))).bool()
            columns = torch.where(mirrored, columns.flip(1), columns)
        item = torch.arange(count)
        moved = padded[item[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        return moved.permute(0, 3, 1, 2)

    def cut(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Set a random square of each image `(batch, channels, height, width)` to zero."""
        if not self.cutout:
            return images
        sides = []
        for length in images.shape[2:]:
            first = torch.from_numpy(rng.integers(length, size=(len(images), 1))) - self.cutout // 2
            place = torch.arange(length)
            sides.append((place >= first) & (place < first + self.cutout))
        rows, columns = sides
        return images.masked_fill((rows[:, :, None] & columns[:, None, :]).unsqueeze(1), 0)
