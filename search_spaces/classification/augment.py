"""Random changes of training images that leave what is on them."""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
import torch
from torch import Tensor

Pixels = Annotated[int, msgspec.Meta(ge=0)]


class Augmentation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What training sees of an image: by default the image itself."""

    pad: Pixels = 0
    """Black pixels put on each side before an image of the old size is cut out at random."""
    flip: bool = False
    """Whether half of the images are mirrored."""
    cutout: Pixels = 0
    """Side of a square, centred anywhere on the image, that is set to the mean (DeVries and Taylor, 2017)."""

    def move(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Shift and mirror (batch, channels, height, width)."""
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
        """Set a square of each of (batch, channels, height, width) to zero."""
        if not self.cutout:
            return images
        sides = []
        for length in images.shape[2:]:
            first = torch.from_numpy(rng.integers(length, size=(len(images), 1))) - self.cutout // 2
            place = torch.arange(length)
            sides.append((place >= first) & (place < first + self.cutout))
        rows, columns = sides
        return images.masked_fill((rows[:, :, None] & columns[:, None, :]).unsqueeze(1), 0)
