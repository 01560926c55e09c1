"""Images in memory, with their labels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Images:
    """Images and their labels."""

    pixels: Tensor
    """`(images, channels, height, width)` uint8, with 1 channel (grey) or 3 (red, green, blue)."""
    labels: Tensor
    """`(images,)` int64: positions in `classes`."""
    classes: tuple[str, ...]
    val: int | None = None
    """The number of the last images that are the split `val`; None if the data set has no division of its own."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width
