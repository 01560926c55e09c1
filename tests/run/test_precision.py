"""`precision: bfloat16`: what autocast evaluates, gradients included, is close to float32; what is kept is float32."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import toy
from nas.genotype.file import Genotype
from nas.multilevel.level import Level, Precision
from nas.multilevel.multilevel import Multilevel
from nas.run.config import load_config
from nas.run.folder import Run, read_records
from nas.run.retraining import retrain
from nas.run.searching import build_levels, build_supernet
from nas.space.definition import SearchSpace
from nas.supernet import Supernet
from search_spaces.darts import darts_space
from search_spaces.nas_bench_201 import nas_bench_201_space

SPACES: dict[SearchSpace, dict[str, Any]] = {
    darts_space: {"channels": 8, "cells": 3, "nodes": 1},
    nas_bench_201_space: {"channels": 8, "cells": 1},
}


def batch(split: str, index: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(len(split))
    return torch.randn(4, 3, 16, 16, generator=generator), torch.randint(0, 10, (4,), generator=generator)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


@functools.cache
def gradients(space: SearchSpace, response: str, precision: Precision, **arguments: Any) -> list[Tensor]:
    """Of the lower and of the upper level."""
    levels = {
        "lower": Level(
            parameters=("network.*",), loss="loss", split="train", optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9}
        ),
        "upper": Level(
            parameters=("arch.*",),
            loss="loss",
            split="val",
            optimizer={"name": "adam", "lr": 3e-4},
            hypergradient={"lower": {"name": response}},
        ),
    }
    supernet = Supernet(space, **SPACES[space], **arguments)
    engine = Multilevel(supernet, levels, {"loss": loss}, batch, 10, precision=precision)
    found = [list(engine.gradient(level, 0)[1].values()) for level in levels]
    assert {each.dtype for each in itertools.chain(supernet.parameters(), *found)} == {torch.float32}
    return [torch.cat([each.flatten() for each in of_level]) for of_level in found]


@pytest.mark.parametrize("evaluation", ["plain", "planned"])
@pytest.mark.parametrize("memory", ["keep", "checkpoint"])
@pytest.mark.parametrize("response", ["first_order", "unrolled"])
@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_gradients_are_close_to_those_in_float32(
    space: SearchSpace, response: str, memory: str, evaluation: str
) -> None:
    how = {"memory": memory, "evaluation": evaluation}
    exact, found = gradients(space, response, "float32"), gradients(space, response, "bfloat16", **how)
    errors = [float((ours - theirs).norm() / theirs.norm()) for ours, theirs in zip(found, exact, strict=True)]
    assert 1e-4 < errors[0] < 0.3  # through batch norms of few pixels
    assert 1e-4 < errors[1] < 0.6  # differences of candidates' outputs, which differ by little at the start


def test_a_search_and_a_retraining_take_it_from_their_configuration(tmp_path: Path) -> None:
    steps = ("retrain.stages.backbone.steps=1", "retrain.stages.averaging.steps=1")
    genotype = Genotype(space="toy", options={"channels": 4}, choices=toy.DEAREST)
    losses, searched = [], []
    for precision in ("float32", "bfloat16"):
        config = toy.config(f"search.precision={precision}", f"retrain.precision={precision}", *steps)
        levels = build_levels(config, build_supernet(config), config.build_task())
        searched.append(levels.gradient("lower", 0)[0].item())
        with Run.create(tmp_path / precision, config.dump(), config.seed) as run:
            retrain(config, genotype, run)
        losses.append(read_records(tmp_path / precision)[0]["loss"])
    for exact, rounded in (losses, searched):
        assert rounded != exact
        assert rounded == pytest.approx(exact, rel=0.05)


def test_a_search_of_tmics_takes_its_three_levels_in_bfloat16() -> None:
    small = ("options.channels=4", "options.layers=1", "task.crop=32", "task.train.size=[48,64]", "task.train.rains=1")
    config = load_config("demo", [*small, "search.precision=bfloat16"])
    supernet = build_supernet(config)
    engine = build_levels(config, supernet, config.build_task())
    moved = engine.step(next(k for k in range(100) if all(x.due(k, engine.steps) for x in engine.levels.values())))
    assert set(moved) == {"lower", "middle", "upper"}
    assert not any(engine.skipped.values())  # all gradients are finite
