"""A task from datasets: batches whose order and augmentation are a function of seed, split and index."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, default_collate

from nas.distributed.ranks import each
from nas.errors import ConfigError, UnknownNameError
from nas.kernels.device import placed
from nas.kernels.finite import equal
from nas.kernels.torch_internals import tree_flatten
from nas.registry import origin
from nas.run.task import TEST, Best, Loss, Task, require_ranked

ALL = "all"
"""The split that joins `train` and `val`."""
BATCH = 64

Metric = Callable[[nn.Module, Any], Tensor | float]
"""(network, batch) to its mean over the batch."""
Source = Any
"""A map-style dataset (`dataset[index]` and `len(dataset)`), or a `DataLoader` of one."""


def task_of(
    *,
    train: Source,
    val: Source | None = None,
    test: Source | None = None,
    loss: Loss | Mapping[str, Loss],
    metrics: Mapping[str, tuple[Metric, Best]],
    score: str | None = None,
    batch: int | None = None,
    collate: Callable[[list[Any]], Any] | None = None,
    inputs: Callable[[Any], tuple[Tensor, ...]] | None = None,
    seed: int = 0,
) -> DatasetTask:
    """Make a task from map-style datasets, for `nas.search(config, task=...)`.

    Each split goes through its dataset in one random order after another. The order is a function of (seed, split,
    index of the batch). So are all random numbers that a dataset draws from torch, NumPy or `random`, such as those of
    its augmentation. Therefore a run that resumes continues exactly. The program's own random state stays untouched.

    Args:
        train: data of the lower level; also of a retraining. A dataset, or a `DataLoader`, of which the dataset, the
            batch size and the collate function are used (its workers are not).
        val: data of the upper level. The split `all` is `train` and `val` together.
        test: data that `nas.retrain` and `nas.evaluate` score; neither search nor retraining reads them.
        loss: (network, batch) to a scalar; or several by name. A single one has the name `loss`.
        metrics: by name, a function and whether the largest (`"max"`) or the smallest (`"min"`) value is best. The
            function maps (network, batch) to a mean over the batch; an evaluation averages over all samples.
        score: the metric that ranks networks; by default the first.
        batch: samples in a batch; by default that of the loader, else 64.
        collate: a list of samples to a batch; by default that of the loader, else torch's.
        inputs: the inputs of the network in a batch, a tuple; by default the first part of a batch that is a sequence,
            or all of a batch that is a tensor.
        seed: of order and augmentation.

    Raises:
        ConfigError: data are not a map-style dataset, a loader has a sampler of its own, or a dataset gives other data
            when it is asked again under the same random state.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.randn(100, 3), torch.randint(2, (100,)))
        >>> def cross_entropy(network, batch):
        ...     return nn.functional.cross_entropy(network(batch[0]), batch[1])
        >>> def accuracy(network, batch):
        ...     return (network(batch[0]).argmax(1) == batch[1]).float().mean()
        >>> task = nas.task_of(train=data, val=data, loss=cross_entropy, metrics={"accuracy": (accuracy, "max")})
        >>> images, labels = task.batch("train", 0)
        >>> images.shape
        torch.Size([64, 3])
    """
    given = {name: data for name, data in (("train", train), ("val", val), (TEST, test)) if data is not None}
    splits = {name: Split.of(name, data, batch, collate) for name, data in given.items()}
    losses = {"loss": loss} if callable(loss) else dict(loss)
    return DatasetTask(splits, losses, metrics, score=score, inputs=inputs, seed=seed)


class Split:
    """The data of one split.

    Args:
        dataset: map-style.
        batch: samples in a batch.
        collate: a list of samples to a batch.
    """

    def __init__(self, dataset: Any, batch: int, collate: Callable[[list[Any]], Any]) -> None:
        self.dataset, self.batch, self.collate = dataset, batch, collate

    @classmethod
    def of(cls, name: str, data: Source, batch: int | None, collate: Callable[[list[Any]], Any] | None) -> Split:
        """Take a dataset, or that of a loader with its batch size and collate function; raises `ConfigError`."""
        if isinstance(data, DataLoader):
            usual = isinstance(data.sampler, SequentialSampler) or (
                isinstance(data.sampler, RandomSampler) and not data.sampler.replacement
            )
            if not isinstance(data.dataset, IterableDataset) and (not usual or data.batch_size is None):
                raise ConfigError(
                    f"{name}: the DataLoader must have no sampler of its own, got {_name(data.sampler)}: the task draws"
                    " the order itself. Give a dataset that repeats or leaves out samples, such as torch's Subset"
                )
            batch, collate = batch or data.batch_size, collate or data.collate_fn
            data = data.dataset
        if isinstance(data, IterableDataset) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
            kind = "the iterable dataset " if hasattr(data, "__iter__") else ""
            raise ConfigError(
                f"{name} must be a map-style dataset (with __getitem__ and __len__), got {kind}{_name(data)}: only data"
                " that have an index can be read again when a run resumes"
            )
        if not len(data):
            raise ConfigError(f"{name} must have at least 1 sample, got an empty {_name(data)}")
        batch = BATCH if batch is None else batch
        if not isinstance(batch, int) or batch < 1:
            raise ConfigError(f"batch must be a whole number of at least 1, got {batch!r}")
        return cls(data, batch, collate or default_collate)

    def __len__(self) -> int:
        return len(self.dataset)


class DatasetTask(Task):
    """A task whose splits are datasets; see `task_of`.

    Args:
        splits: by name.
        losses: by name.
        metrics: by name, a function and whether the largest or the smallest value is best.
        score: the metric that ranks; by default the first.
        inputs: the inputs of the network in a batch.
        seed: of order and augmentation.
    """

    def __init__(
        self,
        splits: Mapping[str, Split],
        losses: Mapping[str, Loss],
        metrics: Mapping[str, tuple[Metric, Best]],
        *,
        score: str | None = None,
        inputs: Callable[[Any], tuple[Tensor, ...]] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        self.splits, self.losses, self._inputs = dict(splits), losses, inputs
        for name, entry in metrics.items():
            if not (isinstance(entry, tuple) and len(entry) == 2 and callable(entry[0])):
                raise ConfigError(
                    f"metrics['{name}'] must be a function and 'max' or 'min', got {entry!r}; write"
                    f" {{'{name}': ({name}, 'max')}}"
                )
        self._functions = {name: function for name, (function, _) in metrics.items()}
        self.metrics = {name: best for name, (_, best) in metrics.items()}
        self.score = score or next(iter(metrics), "")
        require_ranked(self, "task_of")
        self._order = functools.lru_cache(maxsize=8)(self._shuffled)
        for name, split in self.splits.items():
            with _random(seed, name, "check"):
                first = split.dataset[0]
            with _random(seed, name, "check"):
                again = split.dataset[0]
            if not _equal(first, again):
                raise ConfigError(
                    f"{name}: {_name(split.dataset)} must give the same sample for the same index and random state, got"
                    " two different ones. Draw its random numbers from torch's, NumPy's or Python's global generator,"
                    " not from one of its own"
                )

    def batch(self, split: str, index: int) -> Any:
        """Return samples of a split, in its random order, collated."""
        parts = self._parts(split)
        count, size = sum(map(len, parts)), parts[0].batch
        rounds, places = np.divmod(np.arange(index * size, (index + 1) * size), count)
        numbers = [int(self._order(split, int(n))[place]) for n, place in zip(rounds, places, strict=True)]
        with _random(self.seed, split, str(index)):
            return parts[0].collate([_sample(parts, number) for number in numbers])

    def example(self) -> tuple[Tensor, ...]:
        """Return the inputs of the network of one training sample."""
        split = self.splits["train"]
        with _random(self.seed, "train", "example"):
            batch = split.collate([split.dataset[0]])
        if self._inputs is not None:
            return self._inputs(batch)
        first = batch[0] if isinstance(batch, tuple | list) and batch else batch
        if not isinstance(first, Tensor):
            raise ConfigError(
                f"task_of: the first part of a batch must be a tensor, got {type(first).__name__}; give the inputs of"
                " the network by inputs=, such as inputs=lambda batch: (batch['image'],)"
            )
        return (first,)

    def evaluate(self, network: nn.Module, split: str = TEST) -> dict[str, float]:
        """Return the means of all metrics over the samples of a split."""
        parts = self._parts(split)
        count, size = sum(map(len, parts)), parts[0].batch
        device = next((p.device for p in network.parameters()), torch.device("cpu"))
        totals = dict.fromkeys(self.metrics, 0.0)

        def measured(start: int) -> tuple[int, dict[str, float]]:
            numbers = range(start, min(start + size, count))
            with _random(self.seed, split, f"evaluate/{start}"):
                batch = parts[0].collate([_sample(parts, number) for number in numbers])
            return len(numbers), self.measure(network, placed(batch, device))

        for length, values in each(measured, range(0, count, size)):
            for name, value in values.items():
                totals[name] += value * length
        return {name: total / count for name, total in totals.items()}

    def measure(self, network: nn.Module, batch: Any) -> dict[str, float]:
        """Return all metrics of one batch."""
        return {name: float(function(network, batch)) for name, function in self._functions.items()}

    def check(self, split: str = TEST) -> None:
        """Raise `ConfigError` if a split has no data."""
        self._parts(split)

    def members(self, split: str) -> Collection[Any]:
        """Return (split, index) of each sample."""
        names = ("train", "val") if split == ALL else (split,)
        return [(name, i) for name in names if name in self.splits for i in range(len(self.splits[name]))]

    def settings(self) -> dict[str, Any]:
        """Return the size and the batch of each split, the names of losses and metrics, and the seed."""
        splits = {
            name: {"dataset": _name(split.dataset), "samples": len(split), "batch": split.batch}
            for name, split in self.splits.items()
        }
        names = {"losses": list(self.losses), "metrics": dict(self.metrics), "score": self.score}
        return {"class": origin(type(self)), **splits, **names, "seed": self.seed}

    def _parts(self, split: str) -> list[Split]:
        if split == ALL:
            return [self.splits[name] for name in ("train", "val") if name in self.splits]
        if split not in self.splits:
            raise UnknownNameError("split", split, [*self.splits, ALL], f"give its data by task_of({split}=...)")
        return [self.splits[split]]

    def _shuffled(self, split: str, number: int) -> np.ndarray[Any, Any]:
        """The numbers of the samples of a split in the order of its round of this number."""
        count = sum(map(len, self._parts(split)))
        return np.random.default_rng(_seed(self.seed, split, f"order/{number}")).permutation(count)


def _sample(parts: list[Split], number: int) -> Any:
    for part in parts:
        if number < len(part):
            return part.dataset[number]
        number -= len(part)
    raise IndexError(number)


def _seed(*parts: object) -> int:
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def _random(*parts: object) -> Iterator[None]:
    """Seed the CPU generators of torch, NumPy and Python inside, and restore their states afterwards."""
    seed = _seed(*parts)
    states = torch.random.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def _equal(one: Any, other: Any) -> bool:
    """Whether two samples are equal, as far as tensors, arrays and numbers tell."""
    leaves = [tree_flatten(sample)[0] for sample in (one, other)]
    return len(leaves[0]) == len(leaves[1]) and all(map(_equal_leaves, *leaves))


def _equal_leaves(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return equal(a, b)
    return type(a) is type(b) and (not isinstance(a, np.ndarray | int | float | str) or np.array_equal(a, b))


def _name(value: object) -> str:
    return type(value).__qualname__
