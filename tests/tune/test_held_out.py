"""What data a trial reads: its retraining one split, its scores another one, and neither the test data."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import toy
from nas.errors import ConfigError
from nas.run.config import Config, load_config
from nas.run.observer import Observer, Start
from nas.tune.tuning import Splits, tune
from search_spaces.classification.folders import Folders
from search_spaces.classification.handwriting import Digits
from search_spaces.classification.images import Images
from tmics_space.data import moving_texture, write_frames
from tmics_space.data.clips import Clip
from tmics_space.data.sources import Films

RATE = "retrain.stages.{}.level.optimizer.lr=choice(0.01)"


class Watched(Tensor):
    """Tells who takes which items of it; what is taken is a plain tensor."""

    told: Callable[[Any], None] | None = None
    """Of a result computed from it, nobody."""

    def __getitem__(self, items: Any) -> Tensor:
        if self.told is not None:
            self.told(items)
        return self.as_subclass(Tensor)[items]


def watched(tensor: Tensor, told: Callable[[Any], None]) -> Tensor:
    found = tensor.as_subclass(Watched)
    found.told = told
    return found


class Reads(Observer):
    """The items that are read while a trial retrains: for gradients, and to be scored."""

    def __init__(self) -> None:
        self.retraining = False
        self.trained, self.scored, self.tested = Counter[Hashable](), Counter[Hashable](), 0

    def __call__(self, *items: Hashable) -> None:
        if self.retraining:
            (self.trained if torch.is_grad_enabled() else self.scored).update(items)

    def test(self, items: object) -> None:
        self.tested += 1

    def on_start(self, start: Start) -> None:
        self.retraining = start.kind == "retrain"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    reads = Reads()

    def images(load: Callable[[Any], tuple[Images, Images]]) -> Callable[[Any], tuple[Images, Images]]:
        def loaded(self: Any) -> tuple[Images, Images]:
            train, test = load(self)
            pixels = watched(train.pixels, lambda numbers: reads(*numbers.tolist()))
            return (
                dataclasses.replace(train, pixels=pixels),
                dataclasses.replace(test, pixels=watched(test.pixels, reads.test)),
            )

        return loaded

    def films(load: Callable[[Films, int], list[Clip]]) -> Callable[[Films, int], list[Clip]]:
        def loaded(self: Films, seed: int) -> list[Clip]:
            def told(clip: Clip) -> Callable[[Any], None]:
                return reads.test if "test" in clip.name else lambda _: reads(clip.name)

            clips = load(self, seed)
            return [
                dataclasses.replace(
                    clip,
                    frames=watched(clip.frames[:], told(clip)),
                    rainy=tuple(watched(each[:], told(clip)) for each in clip.rainy),
                )
                for clip in clips
            ]

        return loaded

    for cls, wrap in ((Digits, images), (Folders, images), (Films, films)):
        monkeypatch.setattr(cls, "load", wrap(cls.load))  # type: ignore[attr-defined]
    return reads


def digits(folder: Path) -> Config:
    return load_config("digits", ["options={channels: 2, nodes: 1}", *small("all")])


def pictures(folder: Path) -> Config:
    """Ten classes of grey pictures."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 1)):
        for name in range(10):
            (folder / split / str(name)).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(256, size=(8, 8)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / str(name) / f"{number}.png")
    data = f"{{kind: folders, train: {folder}/train, test: {folder}/test, size: 8, grey: true}}"
    return load_config("digits", ["options={channels: 2, nodes: 1}", f"task.data={data}", *small("all")])


def films(folder: Path) -> Config:
    """Six films for training, one of them for the middle level, and one for the test."""
    paths = {name: folder / name for name in [*"abcdef", "test"]}
    for seed, path in enumerate(paths.values()):
        with write_frames(path) as write:
            for frame in moving_texture(5, 24, 28, seed):
                write(frame)
    found = {name: f"{{{', '.join(f'{n}: {paths[n]}' for n in names)}}}" for name, names in
             {"train": [*"abcdef"], "test": ["test"]}.items()}  # fmt: skip
    data = [f"task.{name}={{kind: films, films: {each}, rain: light25}}" for name, each in found.items()]
    options = "options={channels: 2, dna_cells: 1, cna_cells: 1, layers: 1, flow: {name: pyramid, width: 4}}"
    stages = small("backbone") + small("averaging") + small("joint")
    return load_config("demo", [options, *data, "task.crop=16", "retrain.options={channels: 2}", *stages])


def small(stage: str) -> list[str]:
    return ["search.steps=5", "search.epochs=1", "task.batch=16" if stage == "all" else "task.batch=2",
            f"retrain.stages.{stage}.steps=12", "retrain.epochs=3"]  # fmt: skip


@pytest.mark.parametrize("make", [digits, pictures, films])
def test_a_trial_trains_on_one_split_is_scored_on_another_and_never_sees_the_test(
    make: Callable[[Path], Config], reads: Reads, tmp_path: Path
) -> None:
    config = make(tmp_path / "data")
    stage = next(iter(config.retrain.stages))
    path = tmp_path / "config.yaml"
    path.write_text(config.dump())
    task: Any = config.build_task(retraining=True)
    train, val = set(task.members("train")), set(task.members("val"))
    assert train.isdisjoint(val)
    out = tmp_path / "out"
    changes = [RATE.format(stage)]
    result = tune(path, changes, trials=1, storage=f"journal:{tmp_path}/log", out=out, observers=[reads])
    assert result.trials[0].state == "complete"
    assert reads.tested == 0
    assert reads.trained.keys() <= train
    assert len(reads.trained) > 0.2 * len(train), "a few steps read some of it"
    assert reads.scored.keys() == val
    assert len(set(reads.scored.values())) == 1, "each as often as the others"
    assert load_config(out / "trial-0000" / "retrain" / "config.yaml").retrain.stages[stage].level.split == "train"


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (Splits(train="all"), "split 'all', on which networks train, must not overlap split 'val'.*got 1 in both"),
        (Splits(score="train"), "split 'train', on which networks train, must not overlap split 'train'"),
        (Splits(train="val", score="all"), "got 1 in both. Choose other splits by --train and --score"),
    ],
)
def test_splits_that_overlap(splits: Splits, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        tune(toy.CONFIG, [RATE.format("backbone")], trials=1, storage=f"journal:{tmp_path}/log", out=tmp_path / "out",
             splits=splits)  # fmt: skip
    assert not list(tmp_path.glob("out/trial-*"))


def test_a_study_keeps_the_split_that_scores_it(tmp_path: Path) -> None:
    def run(score: str) -> float | None:
        result = tune(toy.CONFIG, [RATE.format("backbone"), "search.steps=2", "retrain.stages.backbone.steps=2",
                                   "retrain.stages.averaging.steps=1"], trials=1, storage=f"journal:{tmp_path}/log",
                      out=tmp_path / "out", splits=Splits(score=score))  # fmt: skip
        return result.trials[0].score

    assert run("middle") == run("middle")
    with pytest.raises(ConfigError, match="split that scores trials was 'middle', got 'val'"):
        run("val")
