from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from nas.errors import InvalidFileError, UnknownNameError
from search_spaces.classification.folders import Folders


def load(root: Path, **options: object) -> Folders:
    return Folders(str(root / "train"), str(root / "test"), **options)  # type: ignore[arg-type]


def test_classes_are_folders(pictures: Path) -> None:
    train, test = load(pictures, size=6).load()
    assert train.classes == ("bright", "dark")
    assert train.labels.tolist() == [0] * 4 + [1] * 4
    assert test.labels.tolist() == [0, 0, 1, 1]
    assert train.shape == (3, 6, 6)
    assert train.pixels[:, :, 3, 3].tolist() == [[220, 220 + i, 0] for i in range(4)] + [
        [20, 20 + i, 0] for i in range(4)
    ]


def test_grey(pictures: Path) -> None:
    train, _ = load(pictures, size=6, grey=True).load()
    assert train.shape == (1, 6, 6)
    assert abs(int(train.pixels[4, 0, 0, 0]) - (0.299 + 0.587) * 20) < 1


def test_folders_that_do_not_fit(pictures: Path) -> None:
    shutil.copytree(pictures / "test" / "dark", pictures / "test" / "darc")
    with pytest.raises(UnknownNameError, match=r"unknown class in .*test: 'darc' \(did you mean 'dark'\?\)"):
        load(pictures).load()
    shutil.rmtree(pictures / "test")
    with pytest.raises(InvalidFileError, match=r"test: must have .* for each class, got no such folder"):
        load(pictures).load()
    (pictures / "test").mkdir()
    with pytest.raises(InvalidFileError, match=r"test: must .*, got no folders in it"):
        load(pictures).load()
    (pictures / "test").rmdir()
    (pictures / "test").touch()
    with pytest.raises(InvalidFileError, match=r"test: must .*, got not a folder"):
        load(pictures).load()


def test_hidden_files_and_folders_are_no_classes(pictures: Path) -> None:
    expected = load(pictures).load()
    for split in ("train", "test"):
        (pictures / split / ".ipynb_checkpoints").mkdir()
        (pictures / split / "__MACOSX").mkdir()
        (pictures / split / "dark" / "._0.png").write_bytes(b"resource fork")
        (pictures / split / "dark" / "Thumbs.db").write_bytes(b"thumbs")
        (pictures / split / "dark" / ".ipynb_checkpoints").mkdir()
    for found, images in zip(load(pictures).load(), expected, strict=True):
        assert found.classes == images.classes
        assert torch.equal(found.pixels, images.pixels)
