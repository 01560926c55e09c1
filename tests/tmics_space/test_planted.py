"""Point 13: worlds in which only one choice can see the signal, and whether a search through all three levels finds it.

In the worlds `ofm` and `tgm` the centre frame is blank, and the neighbours show it shifted by a displacement that their
first pixel tells, which the flow provider reads. In `ofm` the displacement is true: only who follows it can align the
neighbours. In `tgm` the neighbours are not shifted and the displacement lies: who follows it goes astray. In the worlds
`left` and `right` the target also needs what lies 8 pixels to that side, which the operation of that name brings at
once; the convolutions of all other parts together reach some of it too.

The arch parameter of the planted choice begins below the others, so that it is not found where nothing is learned.
"""

from __future__ import annotations

import itertools
import zlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.registry import register
from nas.space.operations import operation
from nas.supernet import Supernet
from tmics_space.data.clips import Batch
from tmics_space.data.sources import Films
from tmics_space.space import tmics
from tmics_space.task import DerainConfig, DerainTask

SIZE, REACH = 24, 8
"""The side of a frame and the largest displacement of a neighbour, in pixels."""

CELL_WORLDS = {"left": 8, "right": -8}
"""By how many pixels the operation of that name shifts to the right, so that it brings what lies to the left."""


@register("flow provider", "test_planted")
class Told(nn.Module):
    """The flow that the first pixel of the neighbour tells, its red along x and its green along y."""

    def forward(self, reference: Tensor, neighbour: Tensor) -> Tensor:
        told = ((neighbour[:, :2, 0, 0] - 0.5) * 4 * REACH).round()
        return told[:, :, None, None].expand(-1, -1, *reference.shape[2:])


@operation("test_planted_shift")
class Shift(nn.Module):
    """What lies `by` pixels to the left. It has no weights: only arch parameters can turn it off."""

    def __init__(self, channels: int, *, by: int) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return torch.roll(x, self.by, -1)


def batch(world: str, seed: int, split: str, index: int, items: int) -> Batch:
    """Windows of smooth noise as the world has it, (items, 3 or 5, 3, SIZE, SIZE)."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{split}/{index}".encode()))
    room = SIZE + 2 * REACH
    noise = torch.rand(items, 3, room // 4, room // 4, generator=generator, dtype=torch.float64)
    scene = F.interpolate(noise, room, mode="bilinear")
    scene = 0.2 + 0.6 * scene
    clean = scene[..., REACH:-REACH, REACH:-REACH]
    if world in CELL_WORLDS:
        target = clean + torch.roll(clean, CELL_WORLDS[world], -1) - 0.5
        return Batch(clean.unsqueeze(1).repeat(1, 3, 1, 1, 1), target.unsqueeze(1).repeat(1, 3, 1, 1, 1))
    told = torch.randint(-REACH, REACH + 1, (items, 5, 2), generator=generator)
    window = clean.unsqueeze(1).repeat(1, 5, 1, 1, 1)
    frames = window.clone()
    for item, time in itertools.product(range(items), (0, 1, 3, 4)):
        if world == "ofm":
            x, y = (REACH - told[item, time]).tolist()
            frames[item, time] = scene[item, :, y : y + SIZE, x : x + SIZE]
        frames[item, time, :2, 0, 0] = told[item, time] / (4 * REACH) + 0.5
    frames[:, 2] = 0.5
    return Batch(frames, window)


def search(world: str, seed: int, lr: float = 0.1, steps: int = 0) -> str:
    """What a search in a world chooses, with `lr` the learning rate of the arch parameters."""
    options: dict[str, Any] = {"channels": 6, "dna_cells": 1, "cna_cells": 1, "layers": 1, "normalize": "batch"}
    options |= {"flow": "test_planted", "frequency": ["none"], "streaks": False, "averaging": "scalar"}
    operations: dict[str, Any] = {"plain": {"factory": "residual"}}
    decision, frames, items, enough = "alignment", 5, 6, 40
    if world in CELL_WORLDS:
        decision, frames, items, enough = "cell/1", 3, 8, 60
        options |= {"alignment": ["tgm"], "frames": frames}
        operations |= {name: {"factory": "test_planted_shift", "by": by} for name, by in CELL_WORLDS.items()}
    clips = Films(films={"none": "none"})
    task = DerainTask(DerainConfig(train=clips, test=clips, structure=0.0, frames=frames))
    supernet = Supernet(tmics, seed=seed, operations=operations, **options).double()
    planted = supernet.decisions[decision].candidates.index(world)
    supernet.arch[decision].data[planted] = -0.1
    weights, averaging, arch = ("network.*", "!network.averaging.*"), ("network.averaging.*",), ("arch.*",)
    upper = {"name": "adam", "lr": lr, "betas": (0.5, 0.999)}
    levels = {
        "lower": Level(parameters=weights, loss="lower", split="train", optimizer={"name": "adam", "lr": 2e-2}),
        "middle": Level(
            parameters=averaging, loss="fused", split="middle", optimizer={"name": "adam", "lr": 1e-3}, period=5
        ),
        "upper": Level(parameters=arch, loss="all", split="val", optimizer=upper, warmup=0.5),
    }
    steps = steps or enough
    engine = Multilevel(supernet, levels, task.losses, lambda split, k: batch(world, seed, split, k, items), steps)
    for k in range(steps):
        engine.step(k)
    return str(supernet.derive().choices[decision])


WORLDS = ("ofm", "tgm", "left", "right")


@pytest.mark.parametrize("world", WORLDS)
def test_point_13_a_search_finds_the_planted_choice(world: str) -> None:
    """Searched in float64: 60 steps magnify rounding so far that float32 would decide single seeds of the last two."""
    assert search(world, seed=0) == world


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_point_13_other_seeds_find_it_too(world: str) -> None:
    assert sum(search(world, seed) == world for seed in range(1, 5)) >= 3


@pytest.mark.parametrize("world", WORLDS)
def test_point_13_nothing_is_found_where_arch_parameters_stand_still(world: str) -> None:
    """After few steps as after many: what is derived depends on the arch parameters alone."""
    assert search(world, seed=0, lr=0.0, steps=4) != world
