from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest
import torch

from nas.errors import ConfigError, InvalidFileError
from search_spaces.classification.fashion import CLASSES, FashionMNIST
from search_spaces.classification.idx import IDX
from search_spaces.classification.task import Classification, ClassificationConfig

INSTALLED = FashionMNIST(pool=2)
SHA256 = "32e245d996cd8268ca3d6bbe2f8b9ece60006781a55559e4999907958370525b"
"""Of the pooled images and the labels of the splits `train` and `val` and of the test, one after another."""


def task(data: FashionMNIST, **fields: object) -> Classification:
    settings = {"data": msgspec.to_builtins(data), "batch": 2, **fields}
    return Classification(msgspec.convert(settings, ClassificationConfig), seed=3)


def test_the_first_images_train_and_the_next_validate(mnist: Path) -> None:
    data = FashionMNIST(str(mnist), train=7, val=4)
    train, test = data.load()
    everything, others = IDX(str(mnist)).load()
    assert torch.equal(train.pixels, everything.pixels[:11])
    assert torch.equal(test.pixels, others.pixels)
    assert train.classes == test.classes == CLASSES
    assert task(data).members("train") == list(range(7))
    assert task(data).members("val") == [7, 8, 9, 10]


def test_a_share_divides_at_random_instead(mnist: Path) -> None:
    shared = task(FashionMNIST(str(mnist), train=7, val=4), val=0.2)
    assert len(shared.members("val")) == 2
    assert sorted(shared.members("train") + shared.members("val")) == list(range(11))


def test_pixels_are_means_of_squares_rounded_half_up() -> None:
    pixels = torch.tensor([[[0, 1, 255, 255], [0, 1, 255, 254]]], dtype=torch.uint8).expand(12, 1, 2, 4)
    assert FashionMNIST(pool=2)._pooled(pixels)[0, 0].tolist() == [[1, 255]]  # of means 0.5 and 254.75
    assert FashionMNIST(pool=1)._pooled(pixels).equal(pixels)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"train": 10, "val": 3}, r"train \+ val must be at most 12, the images in .*, got 13"),
        ({"train": 8, "val": 4, "pool": 2}, "pool must divide the sides of 5x4 pixels, got 2"),
    ],
)
def test_numbers_that_do_not_fit(mnist: Path, data: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FashionMNIST(str(mnist), **data).load()


def test_a_missing_folder_names_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match="nowhere: must have train-images"):
        FashionMNIST(str(tmp_path / "nowhere")).load()


@pytest.mark.skipif(not Path(INSTALLED.root).is_dir(), reason="dataset-fashion-mnist is not installed")
def test_the_division_of_the_installed_data_is_fixed() -> None:
    own = task(INSTALLED)
    train, val = (torch.tensor(own.members(split)) for split in ("train", "val"))
    parts = [(own.train.pixels[each], own.train.labels[each]) for each in (train, val)]
    parts.append((own.test.pixels, own.test.labels))
    assert [tuple(pixels.shape) for pixels, _ in parts] == [(n, 1, 14, 14) for n in (10_000, 5_000, 10_000)]
    digest = hashlib.sha256(b"".join(part.to(torch.uint8).numpy().tobytes() for pair in parts for part in pair))
    assert digest.hexdigest() == SHA256
