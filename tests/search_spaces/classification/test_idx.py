from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nas.errors import InvalidFileError
from search_spaces.classification.idx import IDX

FASHION = Path("/usr/share/datasets/fashion-mnist")


def test_idx_files_are_read_compressed_or_not(mnist: Path) -> None:
    train, test = IDX(str(mnist)).load()
    expected = np.random.default_rng(0).integers(256, size=(12, 5, 4))
    assert np.array_equal(train.pixels[:, 0].numpy(), expected)
    assert (train.pixels.shape, test.pixels.shape) == ((12, 1, 5, 4), (6, 1, 5, 4))
    assert train.labels.tolist() == [0, 1, 2] * 4
    assert test.classes == ("0", "1", "2")


def test_files_with_a_dot_in_their_names(mnist: Path) -> None:
    for path in list(mnist.iterdir()):
        path.rename(mnist / path.name.replace("-idx", ".idx"))
    assert len(IDX(str(mnist)).load()[0].labels) == 12


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("t10k-images-idx3-ubyte", lambda data: data[:-1], "must have 6 x 5 x 4 bytes of data, got 119"),
        ("t10k-images-idx3-ubyte", lambda data: data[:9], "must be an IDX file of bytes in 3 dimensions"),
        ("t10k-labels-idx1-ubyte", lambda data: b"\0\0\x0d" + data[3:], "must be an IDX file of bytes in 1 dimensions"),
        ("t10k-labels-idx1-ubyte", lambda data: data[:7] + b"\5" + data[8:-1], "got 5 labels for 6 images"),
        ("train-images-idx3-ubyte.gz", lambda data: data[:-5], "cannot be read: Compressed file ended"),
        ("train-images-idx3-ubyte.gz", lambda data: b"text", "cannot be read: Not a gzipped file"),
    ],
)
def test_damaged_files(mnist: Path, name: str, change: Callable[[bytes], bytes], message: str) -> None:
    (mnist / name).write_bytes(change((mnist / name).read_bytes()))
    with pytest.raises(InvalidFileError, match=message) as error:
        IDX(str(mnist)).load()
    assert str(error.value).startswith(str(mnist / name))


def test_a_missing_file(mnist: Path) -> None:
    (mnist / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InvalidFileError, match=r"must have train-labels-idx1-ubyte or train-labels-idx1-ubyte\.gz"):
        IDX(str(mnist)).load()


@pytest.mark.skipif(not FASHION.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_mnist() -> None:
    train, test = IDX(str(FASHION)).load()
    assert (train.pixels.shape, test.pixels.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    assert train.labels.bincount().tolist() == [6000] * 10
    values = train.pixels.double() / 255
    assert (values.mean().item(), values.std().item()) == pytest.approx((0.2860, 0.3530), abs=5e-5)
