"""On a graphics processor: the results of the CPU, one wait for the device a level, and graphs that can be captured."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import toy
from nas.multilevel.level import Level, Precision
from nas.multilevel.multilevel import Multilevel
from nas.run.config import load_config
from nas.run.folder import Run, read_records
from nas.run.retraining import load_network, retrain
from nas.run.searching import build_levels, build_supernet, search
from nas.space.definition import SearchSpace
from nas.supernet import Supernet
from search_spaces.darts import darts_space
from search_spaces.nas_bench_201 import nas_bench_201_space
from tmics_space.data.clips import Batch
from tmics_space.task import DerainTask

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("default"),  # of the torch that knows the device, not of the one that is pinned
]

SPACES: dict[SearchSpace, dict[str, Any]] = {
    darts_space: {"channels": 8, "cells": 3, "nodes": 2},
    nas_bench_201_space: {"channels": 8, "cells": 1},
}
TMICS = ("options.channels=4", "options.layers=2", "task.crop=32", "task.train.size=[48,64]", "task.train.rains=1")


def batch(split: str, index: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2 * index + len(split))
    return torch.randn(4, 3, 16, 16, generator=generator).double(), torch.randint(0, 10, (4,), generator=generator)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    images = batch[0].to(next(model.parameters()).dtype)
    return F.cross_entropy(model(images), batch[1])


def levels(supernet: nn.Module, response: str = "first_order", precision: Precision = "float32") -> Multilevel:
    lower = Level(
        parameters=("network.*",), loss="loss", split="train", optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9}
    )
    upper = Level(
        parameters=("arch.*",),
        loss="loss",
        split="val",
        optimizer={"name": "sgd", "lr": 0.1},
        hypergradient={"lower": {"name": response}},
    )
    return Multilevel(supernet, {"lower": lower, "upper": upper}, {"loss": loss}, batch, 100, precision=precision)


def waits(engine: Multilevel, k: int) -> int:
    """How often a step waits for the device."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            engine.step(k)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)


@pytest.mark.parametrize("arguments", [{}, {"memory": "checkpoint"}, {"evaluation": "plain"}], ids=str)
@pytest.mark.parametrize("response", ["first_order", "finite_difference", "unrolled", "neumann"])
@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_steps_are_those_of_the_cpu(space: SearchSpace, response: str, arguments: dict[str, Any]) -> None:
    states = []
    for device in ("cpu", "cuda"):
        supernet = Supernet(space, **SPACES[space], **(arguments if device == "cuda" else {})).double().to(device)
        engine = levels(supernet, response)
        for k in range(3):
            engine.step(k)
        states.append({name: value.cpu() for name, value in supernet.state_dict().items()})
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-6, atol=1e-9)


def test_weights_lie_there_as_torch_has_them_and_average_pooling_is_right() -> None:
    supernet = Supernet(nas_bench_201_space, **SPACES[nas_bench_201_space]).cuda()
    assert all(weight.is_contiguous() for weight in supernet.parameters())
    images = torch.randn(2, 3, 8, 8, dtype=torch.double)
    gradients = []
    for device in ("cpu", "cuda"):
        x = images.to(device).requires_grad_()
        F.avg_pool2d(x, 3, 1, 1, count_include_pad=False).square().sum().backward()
        assert x.grad is not None
        gradients.append(x.grad.cpu())
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_gumbel_draws_on_the_device_what_it_draws_on_the_cpu(space: SearchSpace) -> None:
    states = []
    for device in ("cpu", "cuda"):
        supernet = Supernet(space, relaxation="gumbel", **SPACES[space]).double().to(device)
        engine = levels(supernet)
        for k in range(4):
            engine.step(k)
        states.append([value.cpu() for value in supernet.arch.values()])
    torch.testing.assert_close(*states, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("response", ["first_order", "unrolled"])
@pytest.mark.parametrize("evaluation", ["plain", "planned"])
@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_a_level_waits_once(space: SearchSpace, evaluation: Any, response: str) -> None:
    engine = levels(Supernet(space, evaluation=evaluation, **SPACES[space]).cuda(), response)
    for k in range(2):
        engine.step(k)
        engine.batch("train", k + 1), engine.batch("val", k + 1)  # loaded before
    assert waits(engine, 2) == len(engine.levels)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_losses_and_gradients_can_be_captured_as_a_graph(space: SearchSpace) -> None:
    supernet = Supernet(space, **SPACES[space]).cuda()
    images, labels = (value.cuda() for value in batch("train", 0))
    images = images.float()
    parameters = list(supernet.parameters())

    def gradients() -> tuple[Tensor, ...]:
        return torch.autograd.grad(F.cross_entropy(supernet(images), labels), parameters)

    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch has no types here
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            gradients()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = gradients()
    fresh = batch("val", 7)
    images.copy_(fresh[0])
    labels.copy_(fresh[1])
    graph.replay()
    torch.testing.assert_close(captured, gradients(), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("response", ["first_order", "unrolled"])
@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_bfloat16_is_close_to_float32(space: SearchSpace, response: str) -> None:
    found = []
    for precision in ("float32", "bfloat16"):
        engine = levels(Supernet(space, **SPACES[space]).cuda(), response, precision)
        found.append([torch.cat([g.flatten() for g in engine.gradient(each, 0)[1].values()]) for each in engine.levels])
    errors = [float((ours - theirs).norm() / theirs.norm()) for theirs, ours in zip(*found, strict=True)]
    assert 1e-4 < errors[0] < 0.3
    assert 1e-4 < errors[1] < 0.5


def test_checkpointing_takes_less_memory() -> None:
    peaks = {}
    for memory in ("keep", "checkpoint"):
        engine = levels(Supernet(darts_space, channels=16, cells=6, memory=memory).cuda())
        engine.step(0)  # of which optimizers keep something
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        engine.step(1)
        peaks[memory] = torch.cuda.max_memory_allocated() - before
    assert peaks["checkpoint"] < 0.6 * peaks["keep"]


def test_a_run_searches_retrains_and_comes_back_to_the_cpu(tmp_path: Path) -> None:
    config = toy.config("device=cuda")
    with Run.create(tmp_path / "search", config.dump(), config.seed) as run:
        found = search(config, run)
    with Run.create(tmp_path / "network", config.dump(), config.seed) as run:
        retrain(config, found, run)
    losses = [record["loss"] for record in read_records(tmp_path / "network")]
    assert losses[-1] < losses[0]
    assert {p.device.type for p in load_network(tmp_path / "network").parameters()} == {"cpu"}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_tmics_takes_its_three_levels(precision: str) -> None:
    config = load_config("demo", [*TMICS, "device=cuda", f"search.precision={precision}"])
    engine = build_levels(config, build_supernet(config), config.build_task())
    due = next(k for k in range(100) if all(level.due(k, engine.steps) for level in engine.levels.values()))
    assert set(engine.step(due)) == {"lower", "middle", "upper"}
    assert not any(engine.skipped.values())


class Exact(DerainTask):
    """The same task in double precision."""

    def batch(self, split: str, index: int) -> Batch:
        return Batch(*(images.double() for images in super().batch(split, index)))


def test_gradients_of_tmics_are_those_of_the_cpu() -> None:
    config = load_config("demo", TMICS)
    task = Exact(config.build_task().config)
    found = []
    for device in ("cpu", "cuda"):
        engine = build_levels(config, build_supernet(config).double().to(device), task)
        found.append([engine.gradient(name, 100) for name in engine.levels])
    for (loss_there, there), (loss_here, here) in zip(*found, strict=True):
        assert float(loss_here) == pytest.approx(float(loss_there), rel=1e-9)
        for name, gradient in there.items():
            torch.testing.assert_close(here[name].cpu(), gradient, rtol=1e-6, atol=1e-9)
