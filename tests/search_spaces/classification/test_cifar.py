from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nas.errors import InvalidFileError
from search_spaces.classification.cifar import CIFAR10, CIFAR100


def test_cifar_10_is_read_batch_by_batch(cifar10: Path) -> None:
    train, test = CIFAR10(str(cifar10)).load()
    assert train.pixels.shape == (20, 3, 32, 32)
    assert train.classes[3] == "cat"
    assert train.labels.tolist() == [(b + r) % 10 for b in range(5) for r in range(4)]
    expected = [40 * b + 10 * r + c for b in range(5) for r in range(4) for c in range(3)]
    assert train.pixels[:, :, 7, 9].flatten().tolist() == expected
    assert test.labels.tolist() == [5, 6, 7, 8]
    assert test.pixels[1, :, 0, 0].tolist() == [210, 211, 212]


def test_rows_come_before_columns(cifar10: Path) -> None:
    (cifar10 / "test_batch.bin").write_bytes(bytes([1]) + bytes(i // 32 for i in range(1024)) * 3)
    _, test = CIFAR10(str(cifar10)).load()
    assert torch.equal(test.pixels[0, 2, :, 0], torch.arange(32, dtype=torch.uint8))


def test_cifar_100_has_fine_labels(tmp_path: Path) -> None:
    (tmp_path / "fine_label_names.txt").write_text("\n".join(f"fine_{i}" for i in range(100)))
    for split in ("train", "test"):
        (tmp_path / f"{split}.bin").write_bytes(b"".join(bytes([19, 90 + r]) + bytes([r] * 3072) for r in range(3)))
    train, test = CIFAR100(str(tmp_path)).load()
    assert train.labels.tolist() == test.labels.tolist() == [90, 91, 92]
    assert train.pixels[2].unique().tolist() == [2]
    assert len(train.classes) == 100


def test_the_python_version_is_refused_and_never_read(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x04anything")
    with pytest.raises(InvalidFileError, match=r"pickles .*cifar-10-binary\.tar\.gz"):
        CIFAR10(str(tmp_path)).load()
    (tmp_path / "train").write_bytes(b"")
    with pytest.raises(InvalidFileError, match=r"pickles .*cifar-100-binary\.tar\.gz"):
        CIFAR100(str(tmp_path)).load()


def test_files_that_are_not_cifar(cifar10: Path, tmp_path: Path) -> None:
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.touch()
    with pytest.raises(InvalidFileError, match="must be a folder, got a file"):
        CIFAR10(str(archive)).load()
    with pytest.raises(InvalidFileError, match=r"must have data_batch_1\.bin"):
        CIFAR10(str(tmp_path / "nowhere")).load()
    batch = cifar10 / "data_batch_3.bin"
    whole = batch.read_bytes()
    for data, message in (
        (whole[:-1], "multiple of 3073 bytes, got 12291"),
        (b"", "bytes, got 0"),
        (bytes([10]) + whole[1:], "labels must be below 10, got 10"),
    ):
        batch.write_bytes(data)
        with pytest.raises(InvalidFileError, match=message):
            CIFAR10(str(cifar10)).load()
    batch.unlink()
    with pytest.raises(InvalidFileError, match=r"data_batch_3.bin: cannot be read: No such file"):
        CIFAR10(str(cifar10)).load()
