"""Synthetic camera motion, for static clips and photographs: a smooth pan, zoom and rotation."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.errors import ConfigError

_WAVES = 3
_ENLARGED = 0.5  # px of the picture per px of the view: finer views would be blurred too much


class CameraMotion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the camera moves.

    pan: highest speed along each axis, px of the output per frame, zoom and rotation apart.
    zoom: greatest change of scale, as a part of it, either way.
    rotation: greatest angle, degrees either way.
    period: of the slowest motion, frames; the fastest takes a third of it.
    """

    pan: Annotated[float, msgspec.Meta(ge=0)] = 3.0
    zoom: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1
    rotation: Annotated[float, msgspec.Meta(ge=0, le=45)] = 3.0
    period: Annotated[float, msgspec.Meta(ge=4)] = 60.0


def move_camera(
    clip: Tensor, size: tuple[int, int], seed: int, motion: CameraMotion | None = None, frames: int | None = None
) -> Tensor:
    """A view of `size` (height, width) that wanders over a clip (frames, 3, H, W) or a photograph (3, H, W), uint8.

    Returns (frames, 3, height, width) uint8; a photograph needs `frames`. The view never leaves the picture, and a
    frame does not depend on how many follow it. Raises `ConfigError` where the picture is too small for the view.
    """
    still = clip.ndim == 3
    count = frames if frames is not None else (0 if still else len(clip))
    if count < 1 or (not still and count > len(clip)):
        raise ConfigError(f"frames of the moving view: {frames}; expected 1 or more, at most the clip's length")
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
    """Where in the picture the pixels of a view lie, (height, width, 2) as (x, y) in px; `pose` as in `camera_path`."""
    height, width = size
    x, y, scale, angle = pose.tolist()
    down, right = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) - (height - 1) / 2,
        torch.arange(width, dtype=torch.float64) - (width - 1) / 2,
        indexing="ij",
    )
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    return torch.stack([x + cos * right - sin * down, y + sin * right + cos * down], dim=-1)


def camera_path(
    frames: int, picture: tuple[int, int], view: tuple[int, int], seed: int, motion: CameraMotion | None = None
) -> Tensor:
    """Poses (frames, 4) float64: the view's centre x and y in the picture in px, picture px per view px, and radians.

    Sizes are (height, width). Each quantity is a sum of sines of random phase and slow random frequency; the bounds
    are those of the worst case, so that no pose shows what lies outside the picture. Raises `ConfigError`.
    """
    how = motion or CameraMotion()
    rng = np.random.default_rng(seed)
    (tall, wide), (height, width) = picture, view
    angle = math.radians(how.rotation)
    # At 45 degrees or less, a rotated rectangle is at most this large, half of it on either side of its centre.
    half_wide, half_tall = (width + height * math.sin(angle)) / 2, (width * math.sin(angle) + height) / 2
    fits = min((wide - 1) / half_wide, (tall - 1) / half_tall) / 2 / (1 + how.zoom)
    if fits < _ENLARGED:
        raise ConfigError(f"a picture of {wide}x{tall} is too small for moving views of {width}x{height}")
    scale = min(1.0, fits)
    x, y, zoom, turn = (_wave(frames, how.period, rng) for _ in range(4))
    steepest = 2 * math.pi * _WAVES / how.period
    centre = []
    for wave, side, half in ((x, wide, half_wide), (y, tall, half_tall)):
        room = (side - 1) / 2 - half * scale * (1 + how.zoom)
        centre.append((side - 1) / 2 + min(room, how.pan * scale / steepest) * wave)
    return torch.from_numpy(np.stack([*centre, scale * (1 + how.zoom * zoom), angle * turn], axis=1))


def _wave(frames: int, period: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A smooth random motion within [-1, 1], of a slope of at most 2 pi _WAVES / period."""
    frequency, phase = rng.uniform(1, _WAVES, _WAVES) / period, rng.uniform(0, 2 * math.pi, _WAVES)
    share = rng.dirichlet(np.ones(_WAVES))
    turns = np.arange(frames)[:, None] * frequency
    return np.asarray(np.sin(2 * math.pi * turns + phase) @ share, dtype=np.float64)
