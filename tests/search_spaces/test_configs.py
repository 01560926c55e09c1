"""The configurations that come with the spaces, whole and made small enough to run."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from PIL import Image
from torch import nn

from nas.genotype.file import Genotype
from nas.run.config import Config, load_config
from nas.run.folder import Run, read_records
from nas.run.retraining import evaluate, retrain
from nas.run.searching import search
from nas.space.primitives import DropPath

IMAGES = {"darts": 50_000, "nas-bench-201": 50_000}
EPOCHS = {"darts": (50, 600), "nas-bench-201": (50, 200)}
SMALL = ("options.channels=2", "options.cells=3", "search.steps=2", "search.epochs=1", "retrain.stages.all.steps=3")
TINY = {
    "darts": (
        "options.nodes=1",
        "retrain.options={cells: 4, affine: true, auxiliary: true, drop_path: 0.3, operations: darts-evaluation}",
    ),
    "nas-bench-201": ("options.cells=1",),
}


@pytest.mark.parametrize("name", EPOCHS)
def test_steps_are_whole_epochs_of_the_paper(name: str) -> None:
    config = load_config(name)
    batch = {**config.task, **config.retrain.task}["batch"]
    halves, whole = IMAGES[name] * (1 - config.task["val"]), IMAGES[name]
    found = config.search.steps * config.task["batch"] / halves, config.retrain.stages["all"].steps * batch / whole
    assert [round(epochs, 2) for epochs in found] == list(EPOCHS[name])
    assert (config.search.epochs, config.retrain.epochs) == EPOCHS[name]


@pytest.mark.parametrize("name", EPOCHS)
def test_a_search_and_a_retraining_run(name: str, cifar10: Path, tmp_path: Path) -> None:
    task = (f"task.data.root={cifar10}", "task.batch=4", "retrain.task.batch=3")
    config = load_config(name, [*SMALL, *TINY[name], *task])
    genotype, network = run(config, tmp_path)
    assert genotype.options["affine"] is False
    assert genotype.provenance is not None
    retrained = Genotype.load(tmp_path / "net" / "genotype.yaml")
    assert retrained.options == {**genotype.options, **config.retrain.options}
    losses = [r["loss"] for r in read_records(tmp_path / "net") if r["kind"] == "train"]
    assert len(losses) == 3
    assert all(map(math.isfinite, losses))
    rates = [module.p for module in network.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.2] * len(rates))  # of 0.3, after two thirds of the steps
    assert bool(rates) == (name == "darts")


def test_the_configuration_of_a_folder_of_images_runs(tmp_path: Path) -> None:
    """As its comment says: two folders and the number of classes are all that is to be named."""
    for split, classes in (("train", "ab"), ("test", "ab")):
        for name in classes:
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (40, 30), (200 * (name == "a"), 9 * number, 60)).save(folder / f"{number}.png")
    data = (f"task.data.train={tmp_path / 'train'}", f"task.data.test={tmp_path / 'test'}", "options.classes=2")
    small = ("task.batch=2", *SMALL, "options.nodes=1", "retrain.options.channels=2", "retrain.options.cells=3")
    genotype, network = run(load_config("images", [*data, *small]), tmp_path)
    assert genotype.options["classes"] == 2
    assert network.classifier.out_features == 2  # type: ignore[union-attr]  # of `Network`


def run(config: Config, folder: Path) -> tuple[Genotype, nn.Module]:
    with Run.create(folder / "search", config.dump(), config.seed) as run:
        genotype = search(config, run)
    with Run.create(folder / "net", config.dump(), config.seed) as run:
        network = retrain(config, genotype, run)
    scores = evaluate(network, config.build_task(retraining=True))
    assert 0 <= scores["accuracy"] <= 1
    return genotype, network
