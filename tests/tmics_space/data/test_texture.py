"""The procedural clip."""

from __future__ import annotations

import pytest
import torch

from tmics_space.data import moving_texture


@pytest.mark.parametrize("velocity", [(3, -2), (-1, 4), (0, 0)])
def test_it_moves_exactly(velocity: tuple[int, int]) -> None:
    clip = moving_texture(4, 40, 50, velocity=velocity)
    vx, vy = velocity
    back = clip[1:].roll((-vy, -vx), (2, 3))
    inside = (..., slice(max(0, -vy), 40 - max(0, vy)), slice(max(0, -vx), 50 - max(0, vx)))
    assert torch.equal(back[inside], clip[:-1][inside])


def test_it_looks_alive() -> None:
    clip = moving_texture(1, 96, 128).float()
    assert 60 < clip.mean() < 180
    assert clip.std() > 30
    assert not torch.equal(moving_texture(1, 8, 8, seed=0), moving_texture(1, 8, 8, seed=1))
