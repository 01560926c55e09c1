"""Synthetic camera motion."""

from __future__ import annotations

import math

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas.errors import ConfigError
from tmics_space.data import CameraMotion, move_camera, moving_texture
from tmics_space.data.motion import camera_path, view_grid

STILL = CameraMotion(pan=0, zoom=0, rotation=0)


@given(
    seed=st.integers(0, 100),
    picture=st.tuples(st.integers(40, 90), st.integers(40, 90)),
    view=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    pan=st.floats(0, 20),
    zoom=st.floats(0, 0.5),
    rotation=st.floats(0, 45),
    period=st.floats(4, 100),
)
def test_no_view_leaves_the_picture(
    seed: int, picture: tuple[int, int], view: tuple[int, int], pan: float, zoom: float, rotation: float, period: float
) -> None:
    motion = CameraMotion(pan, zoom, rotation, period)
    try:
        poses = camera_path(30, picture, view, seed, motion)
    except ConfigError:  # too small; the sizes of another test must not be
        return
    for pose in poses:
        x, y = view_grid(pose, view).unbind(-1)
        assert min(x.min(), y.min()) >= -1e-9
        assert x.max() <= picture[1] - 1 + 1e-9
        assert y.max() <= picture[0] - 1 + 1e-9


def test_motion_stays_within_its_bounds_and_uses_them() -> None:
    motion = CameraMotion(pan=3, zoom=0.2, rotation=5, period=40)
    x, y, scale, angle = camera_path(400, (300, 400), (100, 120), 0, motion).unbind(1)
    for centre in (x, y):
        speed = centre.diff().abs().max()
        assert 0.5 < speed <= 3
    assert scale.min() < 0.9 < 1.1 < scale.max()
    assert 0.8 <= scale.min() < scale.max() <= 1.2
    assert math.radians(3) < angle.abs().max() <= math.radians(5)
    for each in (x, y, scale, angle):  # smooth: no harmonic beyond a third of the period
        assert each.diff().diff().abs().max() <= (2 * math.pi * 3 / 40) ** 2 * (each.max() - each.min())


def test_a_still_camera_cuts_the_middle() -> None:
    picture = moving_texture(1, 40, 50)[0]
    views = move_camera(picture, (20, 30), 0, STILL, frames=2)
    assert torch.equal(views, picture[:, 10:30, 10:40].expand(2, 3, 20, 30))
    clip = moving_texture(3, 40, 50)
    assert torch.equal(move_camera(clip, (20, 30), 0, STILL), clip[..., 10:30, 10:40])


def test_views_sample_where_their_grid_says() -> None:
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(100.0), indexing="ij")
    ramp = torch.stack([2 * x, 2 * y, x + y]).to(torch.uint8)  # linear, so bilinear sampling is exact but for rounding
    poses = camera_path(10, (80, 100), (30, 40), 3)
    for view, pose in zip(move_camera(ramp, (30, 40), 3, frames=10), poses, strict=True):
        right, down = view_grid(pose, (30, 40)).unbind(-1)
        assert (view - torch.stack([2 * right, 2 * down, right + down])).abs().max() <= 0.51


def test_a_grid_by_hand() -> None:
    quarter = view_grid(torch.tensor([10.0, 20.0, 2.0, math.pi / 2]), (3, 5))
    assert quarter[1, 2].tolist() == pytest.approx([10, 20])  # the centre
    assert quarter[1, 4].tolist() == pytest.approx([10, 24])  # two to the right is four down, at scale 2
    assert quarter[2, 2].tolist() == pytest.approx([8, 20])


def test_equal_seeds_and_prefixes_agree() -> None:
    picture = moving_texture(1, 60, 60)[0]
    views = move_camera(picture, (32, 32), 1, frames=6)
    assert torch.equal(views[:3], move_camera(picture, (32, 32), 1, frames=3))
    assert not torch.equal(views, move_camera(picture, (32, 32), 2, frames=6))
    assert not torch.equal(views[0], views[5])


def test_each_frame_of_a_clip_is_seen_once() -> None:
    clip = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 60, 60)
    assert move_camera(clip, (32, 32), 0)[:, 0, 9, 9].tolist() == [0, 1, 2, 3, 4]


def test_what_cannot_move() -> None:
    picture = moving_texture(1, 40, 50)[0]
    with pytest.raises(ConfigError, match="moving views of 200x100 must be larger, got 50x40"):
        move_camera(picture, (100, 200), 0, frames=2)
    with pytest.raises(ConfigError, match=r"'frames' of the moving view must .*, got None"):
        move_camera(picture, (10, 10), 0)
    with pytest.raises(ConfigError, match=r"'frames' of the moving view must .*, got 3"):
        move_camera(picture.expand(2, -1, -1, -1), (10, 10), 0, frames=3)
    with pytest.raises(msgspec.ValidationError, match=r"<= 45.0 - at `\$.rotation`"):
        msgspec.convert({"rotation": 90}, CameraMotion)
