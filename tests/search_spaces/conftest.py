"""Data sets of a few images in the formats of their authors."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Write = Callable[[Path], None]


def idx(array: np.ndarray) -> bytes:
    """An array of bytes in the IDX format."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    """Four records a batch; every pixel of record r of batch b has the value 40 b + 10 r + its channel."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    for b, name in enumerate(
        ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]
    ):
        records = [
            bytes([(b + r) % 10]) + b"".join(bytes([40 * b + 10 * r + c] * 1024) for c in range(3)) for r in range(4)
        ]
        (folder / f"{name}.bin").write_bytes(b"".join(records))
    return folder


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """Twelve images of 5x4 for training, compressed, and six for the test, not compressed."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for part, count, suffix in (("train", 12, ".gz"), ("t10k", 6, "")):
        for kind, array in (
            ("images-idx3", rng.integers(256, size=(count, 5, 4))),
            ("labels-idx1", np.arange(count) % 3),
        ):
            data = idx(array)
            (folder / f"{part}-{kind}-ubyte{suffix}").write_bytes(gzip.compress(data) if suffix else data)
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """`train` and `test`, each with two classes of plain pictures: dark ones and bright ones, of different sizes."""
    folder = tmp_path / "pictures"
    for split, count in (("train", 4), ("test", 2)):
        for name, level in (("dark", 20), ("bright", 220)):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (10 + i, 8), (level, level + i, 0)).save(folder / split / name / f"{i}.png")
    return folder
