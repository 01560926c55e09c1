"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) in the binary version."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor

from nas.errors import InvalidFileError
from nas.files import read_text
from search_spaces.classification.images import Images

SHAPE = (3, 32, 32)


class CIFAR10(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="cifar-10"):
    """The folder `cifar-10-batches-bin` of the archive `cifar-10-binary.tar.gz`."""

    root: str

    def load(self) -> tuple[Images, Images]:
        """Return 50,000 training and 10,000 test images; raises `InvalidFileError`."""
        root = _folder(self.root, "data_batch_1", "cifar-10-binary.tar.gz")
        classes = _names(root / "batches.meta.txt")
        train = [_read(root / f"data_batch_{i}.bin", 1, classes) for i in range(1, 6)]
        pixels, labels = (torch.cat(parts) for parts in zip(*train, strict=True))
        return Images(pixels, labels, classes), Images(*_read(root / "test_batch.bin", 1, classes), classes)


class CIFAR100(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="cifar-100"):
    """The folder `cifar-100-binary` of the archive `cifar-100-binary.tar.gz`, with its 100 fine classes."""

    root: str

    def load(self) -> tuple[Images, Images]:
        """Return 50,000 training and 10,000 test images; raises `InvalidFileError`."""
        root = _folder(self.root, "train", "cifar-100-binary.tar.gz")
        classes = _names(root / "fine_label_names.txt")
        train, test = (_read(root / f"{split}.bin", 2, classes) for split in ("train", "test"))
        return Images(*train, classes), Images(*test, classes)


def _folder(root: str, first: str, archive: str) -> Path:
    """Return the folder, which must hold the binary version."""
    path = Path(root)
    if path.is_file():
        raise InvalidFileError(f"{path}: must be a folder, got a file. Unpack the archive and give its folder")
    if (path / first).is_file() and not (path / f"{first}.bin").is_file():
        raise InvalidFileError(
            f"{path}: must be the binary version, got the Python version, whose pickles can run any code. Fetch"
            f" {archive}"
        )
    if not (path / f"{first}.bin").is_file():
        raise InvalidFileError(f"{path}: must have {first}.bin, got none. Give the folder in {archive}")
    return path


def _names(path: Path) -> tuple[str, ...]:
    return tuple(line.strip() for line in read_text(path).splitlines() if line.strip())


def _read(path: Path, labels: int, classes: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Return pixels and labels of a file of records: label bytes, of which the last counts, then 3072 pixels."""
    size = labels + 3 * 32 * 32
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InvalidFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not len(data) or len(data) % size:
        raise InvalidFileError(f"{path}: must have a multiple of {size} bytes, got {len(data)}. Fetch the whole file")
    records = torch.from_numpy(data).view(-1, size)
    found = records[:, labels - 1].long()
    if int(found.max()) >= len(classes):
        raise InvalidFileError(f"{path}: labels must be below {len(classes)}, got {int(found.max())}")
    return records[:, labels:].reshape(-1, *SHAPE), found
