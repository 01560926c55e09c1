"""The handwritten digits that come with scikit-learn (1,797 of 8x8 pixels; Alpaydin and Kaynak, UCI, 1998)."""

from __future__ import annotations

import msgspec
import torch

from nas.errors import ConfigError
from search_spaces.classification.images import Images

TEST = 360


class Digits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="digits"):
    """scikit-learn's digits; the last 360, a fifth, are for the test, by other writers than most of the rest."""

    def load(self) -> tuple[Images, Images]:
        """The 1,437 images for training and the 360 for the test. Raises `ConfigError` without scikit-learn."""
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ConfigError("the digits come with scikit-learn: pip install 'tmics-nas[digits]'") from error
        values, targets = load_digits(return_X_y=True)  # pixels are whole numbers from 0 to 16
        pixels = torch.from_numpy(values).mul(255 / 16).round().to(torch.uint8).view(-1, 1, 8, 8)
        labels, classes = torch.from_numpy(targets).long(), tuple("0123456789")
        return (
            Images(pixels[:-TEST], labels[:-TEST], classes),
            Images(pixels[-TEST:], labels[-TEST:], classes),
        )
