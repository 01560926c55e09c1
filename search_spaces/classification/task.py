"""The task `classification`: batches of augmented images, cross-entropy, accuracy, and prediction on files."""

from __future__ import annotations

import functools
import re
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.distributed.ranks import each
from nas.errors import ConfigError, UnknownNameError
from nas.kernels.memory_format import channels_last
from nas.registry import Count, NonNegative, register
from nas.run.task import TEST, Task
from search_spaces.classification.augment import Augmentation
from search_spaces.classification.cifar import CIFAR10, CIFAR100
from search_spaces.classification.fashion import FashionMNIST
from search_spaces.classification.folders import Folders
from search_spaces.classification.handwriting import Digits
from search_spaces.classification.idx import IDX
from search_spaces.classification.images import Images
from search_spaces.classification.predict import classify_files

SPLITS = ("train", "val", "all")
CHUNK = 250
"""The most images of a batch of `evaluate`, which is no larger than one of training and so takes less memory."""

Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]


class ClassificationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `task` section of a configuration."""

    data: CIFAR10 | CIFAR100 | IDX | FashionMNIST | Folders | Digits
    val: Share | None = None
    """Share of the training images in the split `val`, for the upper level of a search. By default the division of the
    data set, if it has one, else half."""
    batch: Count = 64
    augment: Augmentation = Augmentation()
    auxiliary: NonNegative = 0.4
    """Weight of the loss of each auxiliary output that a network in training mode returns."""


class Batch(NamedTuple):
    """Normalized images `(batch, channels, height, width)` float32, and labels `(batch,)` int64."""

    images: Tensor
    labels: Tensor


@register("task", "classification")
class Classification(Task):
    """Image classification. Networks map images to class scores, or to a tuple of scores, the main ones first.

    The splits `train` and `val` divide the training images, at random unless the data set has a division; `all` is
    their union. Each pass over a split has a new random order. The loss is `cross_entropy`. Images are normalized by
    the mean and the standard deviation of each channel over the training images.

    Args:
        config: the settings.
        seed: of the splits, the orders and the augmentation.
    """

    Config = ClassificationConfig
    config: ClassificationConfig
    score = "accuracy"
    threaded = True
    metrics = MappingProxyType({"accuracy": "max", "loss": "min"})
    statement = "accuracy: share of the test images; loss: mean cross-entropy over them, in nats"

    def __init__(self, config: ClassificationConfig, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.losses = {"cross_entropy": self._loss}
        self._order = functools.lru_cache(maxsize=8)(self._shuffled)

    def batch(self, split: str, index: int) -> Batch:
        """Return augmented images of a split, and their labels."""
        size = self.config.batch
        rounds, places = np.divmod(np.arange(index * size, (index + 1) * size), len(self._numbers(split)))
        chosen = torch.cat([self._order(split, int(n))[places[rounds == n]] for n in np.unique(rounds)])
        rng = self._rng(split, "augment", index)
        images = self.normalize(self.config.augment.move(self.train.pixels[chosen], rng))
        return Batch(self.config.augment.cut(images, rng), self.train.labels[chosen])

    def example(self) -> tuple[Tensor, ...]:
        """Return one image, `(1, channels, height, width)`."""
        return (torch.zeros(1, *self.train.pixels.shape[1:]),)

    def evaluate(self, network: nn.Module, split: str = TEST) -> dict[str, float]:
        """Return the accuracy in [0, 1] and the mean cross-entropy on the test images, or on those of another split."""
        images = self.test if split == TEST else self.train
        members = torch.arange(len(images.labels)) if split == TEST else self._numbers(split)

        def scored(chunk: Tensor) -> tuple[int, float]:
            labels = images.labels[chunk]
            scores = self._classify(network, images.pixels[chunk])
            right = int((scores.argmax(1) == labels).sum())
            return right, F.cross_entropy(scores, labels, reduction="sum").item()

        right, loss = map(sum, zip(*each(scored, torch.split(members, min(CHUNK, self.config.batch))), strict=True))
        return {"accuracy": right / len(members), "loss": loss / len(members)}

    def measure(self, network: nn.Module, batch: Batch) -> dict[str, float]:
        """Return the accuracy and the mean cross-entropy on a batch."""
        scores = self._scores(network, batch.images)[0]
        right = (scores.argmax(1) == batch.labels).double().mean().item()
        return {"accuracy": right, "loss": F.cross_entropy(scores, batch.labels).item()}

    def members(self, split: str) -> list[int]:
        """Return the numbers of the training images of a split."""
        numbers: list[int] = self._numbers(split).tolist()
        return numbers

    def predict(
        self,
        network: nn.Module,
        source: Path,
        sink: Path,
        *,
        tile: int | None = None,
        bfloat16: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, float]:
        """Classify a picture file or a folder of them into a CSV file (see `classify_files`)."""
        if tile is not None or bfloat16:
            raise ConfigError("a classifier must get whole images in 32 bits. Remove --tile and --bfloat16")
        data = self.train
        self.normalize(data.pixels[:1])  # loads and measures the training images before the clock starts
        return classify_files(
            functools.partial(self._classify, network),
            source,
            sink,
            shape=data.shape,
            classes=data.classes,
            progress=progress,
        )

    def normalize(self, pixels: Tensor) -> Tensor:
        """Map images `(batch, channels, height, width)` uint8 to float32 with about zero mean and unit variance."""
        mean, deviation = self._statistics
        return (pixels / 255 - mean) / deviation

    @property
    def train(self) -> Images:
        """The images for search and retraining."""
        return self._data[0]

    @property
    def test(self) -> Images:
        """The images that `evaluate` scores."""
        return self._data[1]

    @functools.cached_property
    def _data(self) -> tuple[Images, Images]:
        return self.config.data.load()

    def _numbers(self, split: str) -> Tensor:
        """Return the numbers of the training images of a split, `(images,)` int64."""
        if split not in SPLITS:
            raise UnknownNameError("split", split, SPLITS)
        return self._members[split]

    @functools.cached_property
    def _members(self) -> dict[str, Tensor]:
        """The training images of each split, by number."""
        count, share = len(self.train.labels), self.config.val
        if share is None and self.train.val is not None:
            order, kept = torch.arange(count), count - self.train.val
        else:
            share = 0.5 if share is None else share
            order = torch.from_numpy(self._rng("split").permutation(count))
            kept = round(count * (1 - share))
        if not 0 < kept < count:
            raise ConfigError(f"task.val must leave images for both splits, got {share} of {count} images")
        least = min(kept, count - kept)
        if least < self.config.batch:
            warnings.warn(
                f"task.batch is {self.config.batch}, but a split has {least} of the {count} training images: batches"
                " contain images more than once",
                stacklevel=2,
            )
        return {"train": order[:kept], "val": order[kept:], "all": torch.arange(count)}

    @functools.cached_property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel over the training images, both `(channels, 1, 1)`."""
        values = torch.arange(256, dtype=torch.double) / 255
        counts = torch.stack([plane.flatten().bincount(minlength=256) for plane in self.train.pixels.unbind(1)])
        shares = counts.double() / counts.sum(1, keepdim=True)
        mean = shares @ values
        deviation = (shares @ values.square() - mean.square()).clamp(min=1e-6).sqrt()
        return mean.float()[:, None, None], deviation.float()[:, None, None]

    def _shuffled(self, split: str, number: int) -> Tensor:
        """Return the images of a split in the order of a pass."""
        members = self._members[split]
        return members[torch.from_numpy(self._rng(split, "order", number).permutation(len(members)))]

    def _rng(self, *purpose: str | int) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32("/".join(map(str, (self.seed, *purpose))).encode()))

    def _loss(self, network: nn.Module, batch: Batch) -> Tensor:
        main, *others = (F.cross_entropy(scores, batch.labels) for scores in self._scores(network, batch.images))
        return main + self.config.auxiliary * sum(others) if others else main

    def _classify(self, network: nn.Module, pixels: Tensor) -> Tensor:
        """Compute scores `(batch, classes)` of images `(batch, channels, height, width)` uint8."""
        images = self.normalize(pixels)
        like = next(network.parameters(), images)
        with channels_last(network):
            return self._scores(network, images.to(like.device))[0].cpu()

    def _scores(self, network: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of a network, the main one first."""
        try:
            outputs = network(images)
        except RuntimeError as error:
            found = re.search(r"to have (\d+) channels, but got (\d+) channels", str(error))
            if found is None or int(found[2]) != images.shape[1]:
                raise
            raise ConfigError(
                f"the network must take images of {found[2]} channels, got one for {found[1]}. Set the option of the"
                f" space, such as options.in_channels={found[2]}"
            ) from error
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            height, width = images.shape[2:]
            raise ConfigError(
                f"task.batch must be at least 2 for images of {width}x{height}, got {len(images)}: in training mode a"
                " batch norm of this network gets one value per channel. Use a larger batch or larger images"
            ) from error
        scores: tuple[Tensor, ...] = outputs if isinstance(outputs, tuple) else (outputs,)
        if not scores or not all(isinstance(each, Tensor) for each in scores):
            inside = f" of {', '.join(type(each).__name__ for each in scores)}" if isinstance(outputs, tuple) else ""
            raise ConfigError(
                "task 'classification': the network must return a tensor of class scores (batch, classes), or a tuple"
                f" of such tensors, the main one first, got a {type(outputs).__name__}{inside}. Change the output of"
                " the search space"
            )
        classes = len(self.train.classes)
        if scores[0].shape[1:] != (classes,):
            raise ConfigError(
                f"the network must return scores of {classes} classes, got shape {tuple(scores[0].shape[1:])}. Set the"
                f" option of the space, such as options.classes={classes}"
            )
        return scores
