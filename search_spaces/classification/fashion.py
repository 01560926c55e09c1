"""Fashion-MNIST (Xiao et al., 2017) with a fixed division, small enough for studies on one core."""

from __future__ import annotations

import msgspec
import torch
from torch import Tensor

from nas.errors import ConfigError
from nas.registry import Count
from search_spaces.classification.idx import IDX
from search_spaces.classification.images import Images

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


class FashionMNIST(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="fashion-mnist"):
    """Fashion-MNIST: the first `train` of its training images train, the next `val` validate, all others are unused.

    The test images are those of the data set.
    """

    root: str = "/usr/share/datasets/fashion-mnist"
    """The folder of the four IDX files; by default that of Debian's package `dataset-fashion-mnist`."""
    pool: Count = 1
    """Side of the squares of pixels that are averaged, such as 2 for images of 14x14 pixels."""
    train: Count = 10_000
    val: Count = 5_000

    def load(self) -> tuple[Images, Images]:
        """Return `train + val` images for search and retraining, and the test images.

        Raises:
            InvalidFileError: a file is missing, cannot be read or does not match.
            ConfigError: there are fewer images, or `pool` does not divide their sides.
        """
        first, test = IDX(self.root).load()
        count = self.train + self.val
        if count > len(first.labels):
            raise ConfigError(
                f"task.data: train + val must be at most {len(first.labels)}, the images in {self.root}, got {count}"
            )
        classes = CLASSES if len(first.classes) <= len(CLASSES) else first.classes
        return (
            Images(self._pooled(first.pixels[:count]), first.labels[:count], classes, self.val),
            Images(self._pooled(test.pixels), test.labels, classes),
        )

    def _pooled(self, pixels: Tensor) -> Tensor:
        """Average squares of pixels, rounded half up."""
        count, channels, height, width = pixels.shape
        if height % self.pool or width % self.pool:
            raise ConfigError(f"task.data.pool must divide the sides of {height}x{width} pixels, got {self.pool}")
        squares = pixels.view(count, channels, height // self.pool, self.pool, width // self.pool, self.pool)
        area = self.pool**2
        return squares.sum((3, 5)).add(area // 2).div(area, rounding_mode="floor").to(torch.uint8)
