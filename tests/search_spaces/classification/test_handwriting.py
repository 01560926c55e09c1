from __future__ import annotations

import sys

import numpy as np
import pytest

from nas.errors import ConfigError
from search_spaces.classification.handwriting import Digits


def test_the_digits_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    known = datasets.load_digits()
    train, test = Digits().load()
    assert (len(train.labels), len(test.labels)) == (1437, 360)
    labels = np.concatenate([train.labels, test.labels])
    pixels = np.concatenate([train.pixels, test.pixels])
    assert np.array_equal(labels, known.target)
    assert np.abs(pixels[:, 0] / 255 * 16 - known.images).max() < 0.04
    assert train.shape == (1, 8, 8)


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ConfigError, match=r"scikit-learn: pip install 'tmics-nas\[digits\]'"):
        Digits().load()
