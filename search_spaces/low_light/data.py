"""Low-light pictures: from folders, or synthetic ones with known truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor

from nas.errors import InvalidFileError
from nas.registry import Count, NonNegative
from search_spaces.picture_files import by_stem, list_images, read_image

Side = Annotated[int, msgspec.Meta(ge=8)]


class Pictures(NamedTuple):
    """Pictures `(pictures, 3, height, width)` float32 in [0, 1]."""

    train: Tensor
    """Low-light pictures for search and training."""
    test: Tensor
    """Low-light pictures to score on."""
    truth: Tensor
    """Those of the test in good light."""


class Folders(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="folders"):
    """Picture files, scaled and cropped to squares; `truth` has files of the names in `test`, as LOL has."""

    train: str
    """Folder of low-light pictures; no truth is needed."""
    test: str
    """Folder of low-light pictures."""
    truth: str
    """Folder of the pictures of `test` in good light."""
    size: Side = 128
    """Height and width in pixels."""

    def load(self) -> Pictures:
        """Return the pictures.

        Raises:
            InvalidFileError: a folder or a picture cannot be read, or a picture has no truth or two.
        """
        test = list_images(Path(self.test))
        truth = by_stem(list_images(Path(self.truth)))
        if lacking := [path for path in test if path.stem not in truth]:
            raise InvalidFileError(f"{lacking[0]}: needs its picture in good light in {self.truth}, got none")
        return Pictures(
            self._read(list_images(Path(self.train))), self._read(test), self._read([truth[p.stem] for p in test])
        )

    def _read(self, paths: list[Path]) -> Tensor:
        return torch.stack([read_image(path, (3, self.size, self.size)) for path in paths]) / 255


class Synthetic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="synthetic"):
    """Coloured rectangles on a gradient, in uneven light, with noise: always the same pictures."""

    train: Count = 64
    """Number of pictures for search and training."""
    test: Count = 16
    size: Side = 32
    """Height and width in pixels."""
    light: tuple[float, float] = (0.1, 0.4)
    """The least and the most light at the corners of a picture."""
    noise: NonNegative = 0.02
    """Standard deviation of the noise of a low-light picture."""

    def load(self) -> Pictures:
        """Return the pictures."""
        rng = np.random.default_rng(0)
        pairs = [self._pair(rng) for _ in range(self.test + self.train)]
        dark, truth = (torch.stack(each) for each in zip(*pairs, strict=True))
        return Pictures(dark[self.test :], dark[: self.test], truth[: self.test])

    def _pair(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        truth = self._gradient(rng.uniform(0.3, 0.9, (3, 2, 2)))
        for _ in range(6):
            top, left = rng.integers(self.size, size=2)
            height, width = rng.integers(2, 1 + self.size // 2, size=2)
            truth[:, top : top + height, left : left + width] = rng.uniform(0.1, 1.0, (3, 1, 1))
        dark = truth * self._gradient(rng.uniform(*self.light, (1, 2, 2)))
        dark = dark + rng.normal(0, self.noise, dark.shape)
        return torch.from_numpy(dark.clip(0, 1)).float(), torch.from_numpy(truth).float()

    def _gradient(self, corners: np.ndarray) -> np.ndarray:
        """Interpolate the corners `(channels, 2, 2)` to a picture."""
        share = np.linspace(0, 1, self.size)
        rows = corners[:, :1] * (1 - share)[:, None] + corners[:, 1:] * share[:, None]
        picture: np.ndarray = rows[..., :1] * (1 - share) + rows[..., 1:] * share
        return picture
