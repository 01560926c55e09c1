"""Data sets of picture files with one folder per class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import torch

from nas.errors import InvalidFileError, UnknownNameError
from nas.files import listed
from search_spaces.classification.images import Images
from search_spaces.picture_files import list_images, read_image


class Folders(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="folders"):
    """Pictures at `train/CLASS/NAME` and `test/CLASS/NAME`, scaled and cropped to squares of `size` pixels."""

    train: str
    test: str
    size: Annotated[int, msgspec.Meta(ge=1)] = 32
    """Height and width to which pictures are scaled and cropped, in pixels."""
    grey: bool = False

    def load(self) -> tuple[Images, Images]:
        """Return the training images and the test images.

        Raises:
            InvalidFileError: a folder is missing or empty, or a picture cannot be read.
            UnknownNameError: a test class has no training images.
        """
        classes = tuple(folder.name for folder in _folders(Path(self.train)))
        return self._read(Path(self.train), classes), self._read(Path(self.test), classes)

    def _read(self, root: Path, classes: tuple[str, ...]) -> Images:
        shape = (1 if self.grey else 3, self.size, self.size)
        pixels, labels = [], []
        for folder in _folders(root):
            if folder.name not in classes:
                raise UnknownNameError(f"class in {root}:", folder.name, classes)
            paths = list_images(folder)
            pixels += [read_image(path, shape) for path in paths]
            labels += [classes.index(folder.name)] * len(paths)
        return Images(torch.stack(pixels), torch.tensor(labels), classes)


def _folders(root: Path) -> list[Path]:
    found = [path for path in listed(root) if path.is_dir()] if root.is_dir() else []
    if not found:
        what = "no such folder" if not root.exists() else "no folders in it" if root.is_dir() else "not a folder"
        raise InvalidFileError(f"{root}: must have a folder of pictures for each class, got {what}")
    return found
