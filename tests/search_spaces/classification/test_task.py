from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from nas.errors import ConfigError, UnknownNameError
from nas.run.retraining import evaluate
from nas.run.task import TASKS
from search_spaces.classification.task import Classification, ClassificationConfig


@pytest.fixture
def build(mnist: Path) -> Callable[..., Classification]:
    """A task on twelve grey images of 5x4 in three classes, and six for the test."""

    def build(*, seed: int = 0, **fields: Any) -> Classification:
        data = {"data": {"kind": "idx", "root": str(mnist)}, "batch": 4, **fields}
        return Classification(msgspec.convert(data, ClassificationConfig), seed=seed)

    return build


class Linear(nn.Module):
    """Class scores by one matrix; in training twice, the second time doubled."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(20, classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        scores: Tensor = self.linear(x.flatten(1))
        return (scores, 2 * scores) if self.training else scores


def originals(task: Classification, images: Tensor) -> list[int]:
    """Which training images these are."""
    known = task.normalize(task.train.pixels).flatten(1)
    return [int((known == image.flatten()).all(1).nonzero()) for image in images]


def test_it_is_found_by_name() -> None:
    assert TASKS.find("classification") is Classification


def test_splits_divide_the_training_images(build: Callable[..., Classification]) -> None:
    task = build(val=0.33, batch=1)
    counts = {"train": 8, "val": 4, "all": 12}
    seen = {s: originals(task, torch.cat([task.batch(s, i).images for i in range(n)])) for s, n in counts.items()}
    assert {split: len(set(numbers)) for split, numbers in seen.items()} == counts
    assert set(seen["train"]) | set(seen["val"]) == set(seen["all"]) == set(range(12))
    other = build(val=0.33, batch=1, seed=1)
    assert set(seen["val"]) != {originals(other, other.batch("val", i).images)[0] for i in range(4)}


def test_every_round_shows_each_image_once_in_a_new_order(build: Callable[..., Classification]) -> None:
    task = build(batch=5)  # 12 batches of 5 are 5 rounds of 12, with batches across rounds
    seen = [number for i in range(12) for number in originals(task, task.batch("all", i).images)]
    rounds = [tuple(seen[start : start + 12]) for start in range(0, 60, 12)]
    assert all(Counter(each) == Counter(range(12)) for each in rounds)
    assert len(set(rounds)) == 5


def test_a_batch_is_a_function_of_split_index_and_seed(build: Callable[..., Classification]) -> None:
    fields = {"augment": {"pad": 2, "flip": True, "cutout": 2}}
    task, again = build(**fields), build(**fields)
    torch.manual_seed(7)
    again.batch("train", 3)  # whatever came before
    for index in (5, 0, 5):
        for one, other in zip(task.batch("train", index), again.batch("train", index), strict=True):
            assert torch.equal(one, other)
    images = task.batch("train", 0).images
    for other in (task.batch("val", 0), task.batch("train", 1), build(seed=1, **fields).batch("train", 0)):
        assert not torch.equal(images, other.images)


def test_labels_belong_to_their_images(build: Callable[..., Classification]) -> None:
    task = build()
    images, labels = task.batch("all", 1)
    assert (images.dtype, images.shape, labels.dtype) == (torch.float32, (4, 1, 5, 4), torch.int64)
    assert labels.tolist() == [number % 3 for number in originals(task, images)]
    assert task.example()[0].shape == (1, 1, 5, 4)


def test_images_are_normalized_by_the_training_images(cifar10: Path) -> None:
    data = {"data": {"kind": "cifar-10", "root": str(cifar10)}}
    task = Classification(msgspec.convert(data, ClassificationConfig))
    everything = task.normalize(task.train.pixels)
    deviation, mean = torch.std_mean(everything, (0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(deviation, torch.ones(3), atol=1e-5, rtol=0)


def test_what_is_cut_out_is_zero_after_normalization(build: Callable[..., Classification]) -> None:
    plain, cut = build().batch("train", 0).images, build(augment={"cutout": 3}).batch("train", 0).images
    changed = plain != cut
    assert changed.any((1, 2, 3)).all()
    assert (cut[changed] == 0).all()


def test_the_loss_is_the_cross_entropy_of_each_output(build: Callable[..., Classification]) -> None:
    task, network = build(auxiliary=0.3), Linear()
    batch = task.batch("train", 0)
    scores = network.linear(batch.images.flatten(1))
    picked = [-scores.log_softmax(1)[i, label] for i, label in enumerate(batch.labels.tolist())]
    doubled = [-(2 * scores).log_softmax(1)[i, label] for i, label in enumerate(batch.labels.tolist())]
    expected = torch.stack(picked).mean() + 0.3 * torch.stack(doubled).mean()
    torch.testing.assert_close(task.losses["cross_entropy"](network, batch), expected)
    torch.testing.assert_close(task.losses["cross_entropy"](network.eval(), batch), torch.stack(picked).mean())


@pytest.mark.parametrize(("batch", "chunk", "sizes"), [(1, 4, [1] * 6), (250, 4, [4, 2]), (4, 250, [4, 2])])
def test_scores_are_means_over_the_test_images_in_batches_no_larger_than_those_of_training(
    build: Callable[..., Classification], monkeypatch: pytest.MonkeyPatch, batch: int, chunk: int, sizes: list[int]
) -> None:
    monkeypatch.setattr("search_spaces.classification.task.CHUNK", chunk)
    task, network, found_sizes = build(batch=batch), Linear(), []
    network.register_forward_pre_hook(lambda _, inputs: found_sizes.append(len(inputs[0])))
    scores = network.eval()(task.normalize(task.test.pixels))
    right = [int(row.argmax()) == label for row, label in zip(scores, task.test.labels.tolist(), strict=True)]
    found_sizes.clear()
    found = evaluate(network, task)
    assert found_sizes == sizes
    assert found["accuracy"] == sum(right) / 6
    assert found["loss"] == pytest.approx(F.cross_entropy(scores, task.test.labels).item())
    assert task.score in found


def test_the_seed_changes_the_splits_but_not_the_test(build: Callable[..., Classification]) -> None:
    tasks = [build(seed=seed) for seed in (0, 1)]
    tasks += [
        Classification(msgspec.convert({"data": {"kind": "digits"}}, ClassificationConfig), seed=s) for s in (0, 1)
    ]
    for one, other in (tasks[:2], tasks[2:]):
        assert torch.equal(one.test.pixels, other.test.pixels)
        assert torch.equal(one.normalize(one.test.pixels), other.normalize(other.test.pixels))
        assert set(one.members("val")) != set(other.members("val"))


def test_scores_on_another_split_are_those_of_its_images_as_they_are(build: Callable[..., Classification]) -> None:
    task, network = build(val=0.25, batch=3, augment={"pad": 2, "flip": True}), Linear()
    network.eval()
    for split, count in (("val", 3), ("train", 9), ("all", 12)):
        members = task.members(split)
        assert len(members) == count
        scores = network(task.normalize(task.train.pixels[members]))
        right = (scores.argmax(1) == task.train.labels[members]).double().mean().item()
        found = evaluate(network, task, split)
        assert found["accuracy"] == right
        assert found["loss"] == pytest.approx(F.cross_entropy(scores, task.train.labels[members]).item())
    batch = task.batch("val", 0)
    expected = F.cross_entropy(network(batch.images), batch.labels).item()
    assert task.measure(network, batch)["loss"] == pytest.approx(expected)
    with pytest.raises(UnknownNameError, match="did you mean 'val'"):
        evaluate(network, task, "vall")


def test_errors(build: Callable[..., Classification], tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown split 'valid' \\(did you mean 'val'\\?\\)"):
        build().batch("valid", 0)
    with pytest.raises(ConfigError, match=r"scores of 3 classes, got shape \(5,\)\..*options\.classes=3"):
        build().losses["cross_entropy"](Linear(5).eval(), build().batch("train", 0))
    with pytest.raises(ConfigError, match=r"task\.val must .*got 0\.01 of 12 images"):
        build(val=0.01).batch("train", 0)
    with pytest.raises(ConfigError, match="Remove --tile and --bfloat16"):
        build().predict(Linear(), tmp_path, tmp_path / "out.csv", tile=64)
    with pytest.raises(ConfigError, match="Remove --tile and --bfloat16"):
        build().predict(Linear(), tmp_path, tmp_path / "out.csv", bfloat16=True)


class Returning(nn.Module):
    """Gives its scores back in another form."""

    def __init__(self, form: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.linear, self.form = nn.Linear(20, 3), form

    def forward(self, images: Tensor) -> object:
        return self.form(self.linear(images.flatten(1)))


@pytest.mark.parametrize(
    ("form", "found"),
    [
        (lambda scores: {"scores": scores}, "got a dict"),
        (lambda scores: [scores], "got a list"),
        (lambda scores: None, "got a NoneType"),
        (lambda scores: (scores, {"aux": scores}), "got a tuple of Tensor, dict"),
        (lambda scores: (), "got a tuple"),
    ],
)
def test_networks_that_return_other_things_than_scores(
    build: Callable[..., Classification], form: Callable[[Tensor], object], found: str
) -> None:
    task, network = build(), Returning(form)
    message = rf"task 'classification': .* {found}.*\. Change"
    with pytest.raises(ConfigError, match=message) as error:
        task.losses["cross_entropy"](network, task.batch("train", 0))
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=message):
        evaluate(network, task)


def test_images_of_other_channels_than_the_network_takes(build: Callable[..., Classification]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ConfigError, match=r"images of 1 channels, got one for 3\..*options\.in_channels=1"):
        build().losses["cross_entropy"](network, build().batch("train", 0))
    with pytest.raises(RuntimeError, match="to have 2 channels, but got 3"):
        build().evaluate(nn.Sequential(nn.Conv2d(1, 3, 1), nn.Conv2d(2, 3, 1)))


def test_a_batch_norm_that_sees_one_value(build: Callable[..., Classification]) -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(1, 3))
    task = build(batch=1)
    with pytest.raises(ConfigError, match=r"task\.batch must be at least 2 for images of 4x5, got 1: .*larger images"):
        task.losses["cross_entropy"](network, task.batch("train", 0))
    assert task.losses["cross_entropy"](network.eval(), task.batch("train", 0)).isfinite()


def test_the_statistics_of_the_training_images_are_no_part_of_the_speed(
    build: Callable[..., Classification], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that an image moves by a second, and what is read or measured of others by a hundred."""
    now = 0.0

    def moved(seconds: float, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal now
            now += seconds
            return function(*arguments, **named)

        return call

    task = build()
    monkeypatch.setattr("search_spaces.classification.predict.time.perf_counter", lambda: now)
    monkeypatch.setattr("search_spaces.classification.idx.IDX.load", moved(100, type(task.config.data).load))
    monkeypatch.setattr(torch.Tensor, "bincount", moved(100, torch.Tensor.bincount))
    for name in ("a.png", "b.png"):
        Image.new("L", (4, 5)).save(tmp_path / name)
    network = Linear().eval()
    network.forward = moved(1, network.forward)  # type: ignore[method-assign]
    facts = task.predict(network, tmp_path, tmp_path / "out.csv")
    assert (facts["seconds"], facts["pictures_per_second"]) == (2, 1)


def test_batches_that_repeat_images_are_said_once(build: Callable[..., Classification]) -> None:
    task = build(val=0.25, batch=4)  # 9 and 3 images
    with pytest.warns(UserWarning, match=r"task\.batch is 4, but a split has 3 of the 12 training images"):
        task.batch("train", 0)
    task.batch("val", 0)
    build(val=0.33, batch=4).batch("train", 0)
