from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np
import pytest
import torch

from search_spaces.classification.augment import Augmentation

HEIGHT, WIDTH = 4, 5
IMAGE = torch.arange(1, 2 * HEIGHT * WIDTH + 1, dtype=torch.uint8).view(1, 2, HEIGHT, WIDTH)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_by_default_images_stay_what_they_are() -> None:
    images = torch.randint(256, (3, 2, 4, 5), dtype=torch.uint8)
    none = Augmentation()
    assert torch.equal(none.cut(none.move(images, rng()), rng()), images)


def test_every_shift_and_mirror_image_comes_up_equally_often() -> None:
    """The possible images are enumerated, and chi-square says whether the drawn ones are uniform among them."""
    padded = torch.nn.functional.pad(IMAGE[0], (1,) * 4)
    possible = []
    for top in range(3):
        for left in range(3):
            cut = padded[:, top : top + HEIGHT, left : left + WIDTH]
            possible += [cut, cut.flip(-1)]
    keys = {tuple(image.flatten().tolist()) for image in possible}
    assert len(keys) == 18
    moved = Augmentation(pad=1, flip=True).move(IMAGE.expand(3600, -1, -1, -1), rng())
    counts = Counter(tuple(image.flatten().tolist()) for image in moved)
    assert counts.keys() == keys
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 40.8  # 0.1 % of chi-square with 17 degrees


def test_cutout_zeroes_one_square_that_may_pass_the_edge() -> None:
    images = torch.ones(2000, 2, HEIGHT, WIDTH)
    cut = Augmentation(cutout=2).cut(images, rng())
    assert torch.equal(cut[:, 0], cut[:, 1])
    zeros = (cut[:, 0] == 0).flatten(1).sum(1)
    # A 2x2 square whose lower right pixel is anywhere passes the edge where that is in the first row or column.
    sizes = {1: 1, 2: HEIGHT - 1 + WIDTH - 1, 4: (HEIGHT - 1) * (WIDTH - 1)}
    for size, places in sizes.items():
        assert int((zeros == size).sum()) / 2000 == pytest.approx(places / (HEIGHT * WIDTH), abs=0.04)
    assert set(zeros.tolist()) == set(sizes)
    whole = cut[zeros == 4][0, 0] == 0
    rows, columns = whole.any(1).nonzero(), whole.any(0).nonzero()
    assert (rows.max() - rows.min(), columns.max() - columns.min()) == (1, 1)


def test_negative_sizes_are_errors() -> None:
    with pytest.raises(msgspec.ValidationError, match=">= 0"):
        msgspec.convert({"pad": -1}, Augmentation)
