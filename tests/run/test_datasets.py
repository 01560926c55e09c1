"""Tasks made from datasets: every batch is a function of seed, split and index."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    StackDataset,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from nas.errors import ConfigError, UnknownNameError
from nas.run.datasets import DatasetTask, task_of

NUMBERS = torch.arange(10.0)
DATA = TensorDataset(NUMBERS[:, None], (NUMBERS % 2).long())


class Noisy(Dataset[Tensor]):
    """Draws from all three global generators, as transforms do."""

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor([index, torch.rand(()).item(), np.random.rand(), random.random()])

    def __len__(self) -> int:
        return 7


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(NUMBERS)


def loss(network: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(network(batch[0]), batch[1])


def error(network: nn.Module, batch: Any) -> Tensor:
    return (network(batch[0]).argmax(1) != batch[1]).float().mean()


def make(**changes: Any) -> DatasetTask:
    return task_of(**{"train": DATA, "loss": loss, "metrics": {"error": (error, "min")}, "batch": 4, **changes})


def seen(task: DatasetTask, split: str, indices: range) -> list[float]:
    return [value for index in indices for value in task.batch(split, index)[0].flatten().tolist()]


def test_each_round_goes_through_all_samples_in_an_order_of_its_own() -> None:
    task = make()
    numbers = seen(task, "train", range(5))  # two rounds
    rounds = numbers[:10], numbers[10:]
    assert [sorted(each) for each in rounds] == [NUMBERS.tolist()] * 2
    assert rounds[0] != rounds[1]
    assert seen(make(), "train", range(5)) == numbers
    assert seen(make(seed=1), "train", range(5)) != numbers
    labels = task.batch("train", 3)
    assert torch.equal(labels[0][:, 0] % 2, labels[1].float()), "samples stay whole"


def test_all_is_training_and_validation_data_together() -> None:
    task = make(val=TensorDataset(NUMBERS[:, None] + 10, (NUMBERS % 2).long()))
    assert sorted(seen(task, "all", range(5))) == list(range(20))
    assert not set(task.members("train")) & set(task.members("val"))
    assert set(task.members("all")) == {*task.members("train"), *task.members("val")}


def test_random_numbers_of_a_dataset_are_those_of_the_batch() -> None:
    task = make(train=Noisy(), inputs=lambda batch: (batch,))
    expected = [task.batch("train", index) for index in range(4)]
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    state = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    for index in (3, 1, 0, 2):
        assert torch.equal(task.batch("train", index), expected[index])
    task.example(), task.evaluate(_Constant(), "train")
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == state, "the program's own state is untouched"
    noise = torch.cat(expected)[:, 1:]
    assert len(noise.unique()) == noise.numel()


class _Constant(nn.Module):
    """Two class scores, the first the higher one."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([1.0, 0.0]).expand(len(x), 2)


def _odd(network: nn.Module, batch: Any) -> float:
    return float((batch[0] % 2).mean())


def test_an_evaluation_weighs_samples_not_batches() -> None:
    odd = TensorDataset(torch.tensor([[1.0]] * 4 + [[0.0]]), torch.tensor([1, 1, 1, 1, 0]))
    task = make(test=odd, metrics={"error": (error, "min"), "odd": (_odd, "max")})
    assert task.evaluate(_Constant()) == pytest.approx({"error": 0.8, "odd": 0.8})
    assert task.score == "error"
    assert task.metrics == {"error": "min", "odd": "max"}
    assert make(score="odd", metrics={"error": (error, "min"), "odd": (_odd, "max")}).score == "odd"
    assert task.measure(_Constant(), task.batch("train", 0)).keys() == {"error", "odd"}


def test_a_loader_gives_its_dataset_batch_size_and_collate_function() -> None:
    def doubled(samples: list[Any]) -> Any:
        x, y = default_collate(samples)
        return 2 * x, y

    loader: DataLoader[Any] = DataLoader(DATA, batch_size=5, shuffle=True, collate_fn=doubled)
    task = make(train=loader, batch=None)
    assert sorted(seen(task, "train", range(2))) == (2 * NUMBERS).tolist()
    assert len(task.batch("train", 0)[0]) == 5
    assert len(make(train=loader, batch=3).batch("train", 0)[0]) == 3
    assert len(make(batch=None).batch("train", 0)[0]) == 64


def test_the_inputs_of_the_network() -> None:
    assert [each.shape for each in make().example()] == [(1, 1)]
    pictures = StackDataset(image=NUMBERS[:, None], label=NUMBERS)
    with pytest.raises(ConfigError, match=r"must be a tensor, got dict; .*inputs="):
        make(train=pictures).example()
    (image,) = make(train=pictures, inputs=lambda batch: (batch["image"],)).example()
    assert image.shape == (1, 1)


class Own(Noisy):
    """Draws from a generator of its own."""

    generator = np.random.default_rng(0)

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor([index, self.generator.random()])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": Stream()}, r"train must be a map-style .* got the iterable dataset Stream"),
        ({"val": DataLoader(Stream())}, r"val must be a map-style .* got the iterable dataset Stream"),
        ({"train": iter([1])}, r"train must be a map-style .* got the iterable dataset list_iterator"),
        ({"train": 3}, "train must be a map-style .* got int"),
        ({"train": DataLoader(DATA, sampler=WeightedRandomSampler([1.0] * 10, 10))}, "got WeightedRandomSampler"),
        ({"train": DataLoader(DATA, batch_size=None)}, "train: the DataLoader"),
        ({"test": []}, "test must have at least 1 sample, got an empty list"),
        ({"train": Own()}, "train: Own must give the same sample"),
        ({"batch": 0}, "batch must be .* at least 1, got 0"),
        ({"metrics": {"error": error}}, r"metrics\['error'\] must be a function and 'max' or 'min'"),
        ({"metrics": {"error": (error, "least")}}, r"metrics\['error'\] must be 'max' or 'min', got 'least'"),
        ({"metrics": {}}, "metrics must have the score"),
        ({"score": "eror"}, r"the score 'eror' \(did you mean 'error'\?\)"),
    ],
)
def test_what_cannot_resume_or_rank_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_splits_without_data() -> None:
    task = make()
    with pytest.raises(UnknownNameError, match=r"'val'.*task_of\(val=\.\.\.\)"):
        task.batch("val", 0)
    with pytest.raises(UnknownNameError, match="'test'"):
        task.check("test")
    task.check("train")


def test_settings_tell_other_data() -> None:
    assert make().settings() == make().settings()
    for changes in ({"batch": 5}, {"seed": 1}, {"train": NUMBERS}, {"val": DATA}, {"loss": {"other": loss}}):
        assert make(**changes).settings() != make().settings()
