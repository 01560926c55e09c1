"""Synthetic camera motion, for static clips and photographs: a smooth pan, zoom and rotation, and parallax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.errors import ConfigError
from tmics_space.data.stored import Frames, region

_WAVES = 3
_ENLARGED = 0.5  # least px of the picture per px of the view: a finer view is too blurred


class CameraMotion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bounds of a synthetic camera motion."""

    pan: Annotated[float, msgspec.Meta(ge=0)] = 3.0
    """Greatest speed along each axis, without zoom and rotation, in px of the output per frame."""
    zoom: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1
    """Greatest relative change of scale, in both directions."""
    rotation: Annotated[float, msgspec.Meta(ge=0, le=45)] = 3.0
    """Greatest angle, in degrees, in both directions."""
    period: Annotated[float, msgspec.Meta(ge=4)] = 60.0
    """Period of the slowest motion, in frames; that of the fastest is a third."""
    parallax: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    """Greatest relative difference of the pan between parts of a window's picture, as if at other distances."""
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    """Share of the windows of films whose camera moves; photographs always do. Only for motion by window."""


def move_camera(
    clip: Tensor, size: tuple[int, int], seed: int, motion: CameraMotion | None = None, frames: int | None = None
) -> Tensor:
    """Move a view over a clip or a photograph.

    The view never leaves the picture. A frame does not depend on the number of frames after it.

    Args:
        clip: `(frames, 3, height, width)` or `(3, height, width)`, uint8.
        size: (height, width) of the view.
        seed: of the motion.
        motion: its bounds.
        frames: number of frames; a photograph needs it.

    Returns:
        The views, `(frames, 3, *size)` uint8.

    Raises:
        ConfigError: the picture is too small for the view, or the number of frames is not valid.
    """
    still = clip.ndim == 3
    count = frames if frames is not None else (0 if still else len(clip))
    if count < 1 or (not still and count > len(clip)):
        raise ConfigError(f"'frames' of the moving view must be from 1 to the clip's length, got {frames}")
    height, width = clip.shape[-2:]
    poses = camera_path(count, (height, width), size, seed, motion)
    views = []
    for index in range(count):
        picture = (clip if still else clip[index]).unsqueeze(0).float()
        grid = view_grid(poses[index], size).to(clip.device)
        scale = grid.new_tensor([2 / (width - 1), 2 / (height - 1)])
        view = F.grid_sample(picture, (grid * scale - 1).unsqueeze(0).float(), "bilinear", "border", align_corners=True)
        views.append(view[0].round().to(torch.uint8))
    return torch.stack(views)


def view_grid(pose: Tensor, size: tuple[int, int]) -> Tensor:
    """Compute the positions in the picture of the pixels of a view.

    Args:
        pose: a row of `camera_path`.
        size: (height, width) of the view.

    Returns:
        Positions (x, y) in px, `(height, width, 2)`.
    """
    return _view_grids(pose[None].double(), size)[0]


def _view_grids(poses: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    x, y, scale, angle = poses[..., None, None].unbind(1)
    down = torch.arange(height, dtype=torch.float64)[:, None] - (height - 1) / 2
    right = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    cos, sin = scale * angle.cos(), scale * angle.sin()
    return torch.stack([x + cos * right - sin * down, y + sin * right + cos * down], dim=-1)


def camera_path(
    frames: int, picture: tuple[int, int], view: tuple[int, int], seed: int, motion: CameraMotion | None = None
) -> Tensor:
    """Compute poses of the camera. No pose shows anything outside the picture.

    Each quantity is a sum of sines with random phases and slow random frequencies.

    Args:
        frames: number of poses.
        picture: (height, width).
        view: (height, width).
        seed: of the motion.
        motion: its bounds.

    Returns:
        Poses `(frames, 4)` float64: the view's centre x and y in px of the picture, px of the picture per px of the
        view, and the angle in radians.

    Raises:
        ConfigError: the picture is too small for the view.
    """
    how = motion or CameraMotion()
    rng = np.random.default_rng(seed)
    (tall, wide), (height, width) = picture, view
    angle = math.radians(how.rotation)
    # Half the greatest width and height of the view, rotated by up to 45 degrees.
    half_wide, half_tall = (width + height * math.sin(angle)) / 2, (width * math.sin(angle) + height) / 2
    fits = min((wide - 1) / half_wide, (tall - 1) / half_tall) / 2 / (1 + how.zoom)
    if fits < _ENLARGED:
        raise ConfigError(f"a picture for moving views of {width}x{height} must be larger, got {wide}x{tall}")
    scale = min(1.0, fits)
    x, y, zoom, turn = (_wave(frames, how.period, rng) for _ in range(4))
    steepest = 2 * math.pi * _WAVES / how.period
    centre = []
    for wave, side, half in ((x, wide, half_wide), (y, tall, half_tall)):
        room = (side - 1) / 2 - half * scale * (1 + how.zoom)
        centre.append((side - 1) / 2 + min(room, how.pan * scale / steepest) * wave)
    return torch.from_numpy(np.stack([*centre, scale * (1 + how.zoom * zoom), angle * turn], axis=1))


def moving_window(
    frames: Frames, indices: Sequence[int], size: tuple[int, int], motion: CameraMotion, rng: np.random.Generator
) -> Tensor:
    """Move a view evenly over frames of a film, or over a photograph.

    Direction and speed of the pan, up to `motion.pan`, are drawn, and so are place, scale, angle and their rates. With
    `parallax`, smooth parts of the picture pan faster or slower than the others.

    Args:
        frames: of the clip; one frame is a photograph.
        indices: of the frames that are seen, in order.
        size: (height, width) of the view.
        motion: its bounds.
        rng: the source of random numbers.

    Returns:
        The views, `(len(indices), 3, *size)` uint8.

    Raises:
        ConfigError: the frames are too small for the view.
    """
    height, width = frames.shape[-2:]
    poses = window_path(len(indices), (height, width), size, motion, rng)
    at = _view_grids(poses, size).float()
    most = at.new_tensor([width - 1, height - 1])
    corners = at[:, :: max(size[0] - 1, 1), :: max(size[1] - 1, 1)]
    low, high = corners.amin((0, 1, 2)), corners.amax((0, 1, 2))
    if motion.parallax:
        depth = torch.from_numpy(rng.uniform(-1, 1, (1, 1, 3, 3))).float()
        near = F.interpolate(depth, size, mode="bilinear", align_corners=True)[0, 0]
        way = motion.parallax * (poses[:, :2] - poses[len(poses) // 2, :2]).float()
        at = torch.minimum((at + near[..., None] * way[:, None, None]).clamp_(min=0), most)
        low, high = low - way.abs().amax(0), high + way.abs().amax(0)
    low, high = low.floor().clamp(min=0), torch.minimum(high.ceil(), most)
    left, top, right, bottom = (int(side) for side in (*low, *high))
    still = len(set(indices)) == 1
    seen = region(frames, indices[:1] if still else indices, top, left, bottom - top + 1, right - left + 1).float()
    grid = (at - low) * (2 / (high - low).clamp(min=1)) - 1
    pictures = seen.expand(len(indices), -1, -1, -1)
    views = F.grid_sample(pictures, grid, "bilinear", "border", align_corners=True)
    return views.round_().to(torch.uint8)


def window_path(
    frames: int, picture: tuple[int, int], view: tuple[int, int], motion: CameraMotion, rng: np.random.Generator
) -> Tensor:
    """Draw the poses of an even motion in one window, as `camera_path` returns them.

    Raises:
        ConfigError: the picture is too small for the view.
    """
    steepest = 2 * math.pi * _WAVES / motion.period  # the slope of a wave of `camera_path`
    middle = np.arange(frames) - (frames - 1) / 2
    zoom, turn, zooming, turning = rng.uniform(-1, 1, 4)
    speed, heading = motion.pan * rng.uniform(), rng.uniform(0, 2 * math.pi)
    scale = (1 + motion.zoom * zoom) * np.exp(motion.zoom * steepest * zooming * middle)
    angle = math.radians(motion.rotation) * (turn + steepest * turning * middle)
    steepness = min(np.abs(angle).max(), math.pi / 4)
    (tall, wide), (height, width) = picture, view
    half = np.array([width + height * math.sin(steepness), width * math.sin(steepness) + height]) / 2
    room = (np.array([wide, tall]) - 1) / 2
    fits = float((room / half).min() / scale.max())
    if fits < _ENLARGED:
        raise ConfigError(f"a picture for moving views of {width}x{height} must be larger, got {wide}x{tall}")
    scale = scale * min(1.0, fits)
    room = np.maximum(room - half * scale.max(), 0)
    way = speed * scale.mean() * np.array([math.cos(heading), math.sin(heading)]) * middle[:, None]
    way = way.clip(-room, room)
    start = rng.uniform(-1, 1, 2) * (room - np.abs(way).max(0))
    centre = (np.array([wide, tall]) - 1) / 2 + start + way
    return torch.from_numpy(np.concatenate([centre, scale[:, None], angle[:, None]], axis=1))


def _wave(frames: int, period: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Compute a smooth random motion within [-1, 1] with a slope of at most 2 pi _WAVES / period."""
    frequency, phase = rng.uniform(1, _WAVES, _WAVES) / period, rng.uniform(0, 2 * math.pi, _WAVES)
    share = rng.dirichlet(np.ones(_WAVES))
    turns = np.arange(frames)[:, None] * frequency
    return np.asarray(np.sin(2 * math.pi * turns + phase) @ share, dtype=np.float64)
