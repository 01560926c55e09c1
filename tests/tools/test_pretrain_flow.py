"""Pretraining of the optical flow: what its error means, and what it trains on."""

from __future__ import annotations

import argparse
import types
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import shipping
from nas.run.config import load_config
from nas.run.searching import build_supernet
from tmics_space.data import moving_texture, write_frames
from tmics_space.flow import warp


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("pretrain_flow")


class Matched(nn.Module):
    """An oracle: the one of the known motions that explains the reference best."""

    def __init__(self, shifts: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.shifts = shifts

    def forward(self, reference: Tensor, neighbour: Tensor) -> Tensor:
        def gap(shift: tuple[int, int]) -> float:
            moved = neighbour.roll((-shift[1], -shift[0]), (2, 3))
            return float((moved - reference)[..., 24:-24, 24:-24].abs().mean())

        best = min(self.shifts, key=gap)
        flow = reference.new_zeros(len(reference), 2, *reference.shape[2:])
        return flow + torch.tensor(best).view(1, 2, 1, 1)


class Still(nn.Module):
    def forward(self, reference: Tensor, neighbour: Tensor) -> Tensor:
        return torch.zeros_like(reference[:, :2])


def test_the_error_is_the_distance_from_the_true_motion(tool: ModuleType) -> None:
    assert tool.endpoint_errors(Matched(tool.SHIFTS)) == [0.0] * len(tool.SHIFTS)
    lengths = [float(torch.tensor(shift).float().norm()) for shift in tool.SHIFTS]
    assert tool.endpoint_errors(Still()) == pytest.approx(lengths)


def test_a_configuration_gives_flow_and_windows(tool: ModuleType, tmp_path: Path) -> None:
    with write_frames(tmp_path / "film") as write:
        for frame in moving_texture(6, 48, 64):
            write(frame)
    changes = [f"task.train.films={{film: '{tmp_path / 'film'}'}}", "task.train.size=null", "task.train.motion=null"]
    given = argparse.Namespace(config="compact-demo", films=changes, seed=0, steps=2, crop=16, batch=2)
    flow, loss = tool.of_config(given)
    assert (flow.levels, flow.finest) == (4, 4)
    value, shown = loss(flow, 0)  # the initial flow is zero
    assert value.item() == pytest.approx(shown["still"], abs=0.1)
    tool.train(flow, loss, 2, 1e-3)
    assert loss(flow, 0)[0] != value


def test_a_neighbour_moved_by_the_known_motion_is_the_reference(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = moving_texture(1, 64, 80).expand(5, -1, -1, -1)[None].float() / 255
    still = types.SimpleNamespace(window=clean, rainy=clean)
    reference, neighbour, motion = tool.moved(still, torch.Generator().manual_seed(4))
    assert reference.shape == neighbour.shape == (1, 3, 32, 48)
    inside = (..., slice(12, -12), slice(12, -12))
    assert 4 < motion.norm(dim=1).mean() < 12
    left = (warp(neighbour, motion) - reference)[inside].abs().max()
    assert left < 1e-5 < (neighbour - reference)[inside].abs().mean()

    monkeypatch.setattr(
        tool, "random_motion", lambda *_: torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 64, 80)
    )
    reference, neighbour, _ = tool.moved(still, torch.Generator())
    assert torch.allclose(reference[..., 2:, :-3], neighbour[..., :-2, 3:], atol=1e-6)


def test_both_pictures_have_rain_of_different_frames(tool: ModuleType) -> None:
    clean = torch.full((1, 5, 3, 40, 40), 0.5)
    rainy = clean + torch.linspace(0, 0.4, 5).view(1, 5, 1, 1, 1)
    batch = types.SimpleNamespace(window=clean, rainy=rainy)
    reference, neighbour, _ = tool.moved(batch, torch.Generator())
    assert reference.mean().item() == pytest.approx(0.5)
    assert neighbour.mean().item() == pytest.approx(0.9)


def test_the_flow_of_a_run_is_found(tool: ModuleType, tmp_path: Path) -> None:
    run = shipping.tiny_run(tmp_path / "run", alignment=["ofm"])
    assert len(tool.table(tool.flow_of(tool.nas.load(str(run))))) == 2 + len(tool.SHIFTS)


@pytest.mark.parametrize("name", ["compact", "compact-demo"])
def test_a_new_network_of_a_shipped_configuration_aligns_known_motions(tool: ModuleType, name: str) -> None:
    errors = dict(zip(tool.SHIFTS, tool.endpoint_errors(tool.flow_of(tool.network_of(name))), strict=True))
    assert errors[0, 0] < 1
    assert errors[4, 0] < 1
    assert errors[16, 0] < 2
    untrained = build_supernet(load_config(name, {"initial": None}))
    assert tool.endpoint_errors(tool.flow_of(untrained))[tool.SHIFTS.index((4, 0))] == pytest.approx(4)
    assert load_config(name).task["photometric"] == 0, "the loss of the flow, which no level moves"
