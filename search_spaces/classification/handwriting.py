"""The handwritten digits included in scikit-learn (1,797 of 8x8 pixels; Alpaydin and Kaynak, UCI, 1998)."""

from __future__ import annotations

import msgspec
import torch

from nas.errors import MissingPackageError
from search_spaces.classification.images import Images

TEST = 360


class Digits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="digits"):
    """The digits of scikit-learn. The last 360, a fifth, are test images, mostly by different writers."""

    def load(self) -> tuple[Images, Images]:
        """Return 1,437 training and 360 test images; raises `MissingPackageError` without scikit-learn."""
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise MissingPackageError("the digits come with scikit-learn", "digits") from error
        values, targets = load_digits(return_X_y=True)  # pixels are whole numbers from 0 to 16
        pixels = torch.from_numpy(values).mul(255 / 16).round().to(torch.uint8).view(-1, 1, 8, 8)
        labels, classes = torch.from_numpy(targets).long(), tuple("0123456789")
        return (
            Images(pixels[:-TEST], labels[:-TEST], classes),
            Images(pixels[-TEST:], labels[-TEST:], classes),
        )
