"""Cuts between the shots of a film, and splits that keep all shots of a film together."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from nas.errors import ConfigError

_CUT = 30.0  # least mean difference at a cut, of 255; fast pans stay below 20
_STANDS_OUT = 2.0  # least ratio to the median of the differences around it


def find_cuts(clip: Iterable[Tensor]) -> list[int]:
    """Find the frames at which a new shot begins.

    The difference of neighbouring frames is the mean absolute difference in grey at 32x32 pixels. At a cut it is above
    30 of 255 and above twice the median of the six differences around it.

    Args:
        clip: frames `(3, height, width)` uint8.

    Returns:
        Positions of the frames, ascending.
    """
    grey = [F.adaptive_avg_pool2d(frame.float().mean(0, keepdim=True), 32) for frame in clip]
    change = np.array([float((after - before).abs().mean()) for before, after in itertools.pairwise(grey)])
    cuts = []
    for index in np.flatnonzero(change > _CUT):
        around = np.concatenate([change[max(index - 3, 0) : index], change[index + 1 : index + 4]])
        if not len(around) or change[index] > _STANDS_OUT * np.median(around):
            cuts.append(int(index) + 1)
    return cuts


def find_gaps(numbers: Sequence[int]) -> tuple[int, ...]:
    """Find gaps in ascending frame numbers: steps of at least twice the smallest step.

    So every fifth frame of a film has no gap, and time stamps may vary a little.

    Args:
        numbers: of the frames, ascending.

    Returns:
        The positions after the gaps.
    """
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    gap = 2 * min(steps, default=0)
    return tuple(place for place, step in enumerate(steps, 1) if step >= gap)


def shot_bounds(clip: Iterable[Tensor], frames: int, known: Collection[int] = ()) -> list[tuple[int, int]]:
    """Return the first frame of each shot, and the one after its last: between cuts and at the `known` frames."""
    return list(itertools.pairwise(sorted({0, *find_cuts(clip), *known, frames})))


def split_at_cuts(clip: Tensor, known: Collection[int] = ()) -> list[Tensor]:
    """Divide a clip `(frames, ...)` into shots, which are views of it, at its cuts and at the `known` frames."""
    return [clip[start:stop] for start, stop in shot_bounds(clip, len(clip), known)]


class Named(Protocol):
    """An object that `split_clips` can divide: it has a name and the name of its film."""

    @property
    def name(self) -> str: ...
    @property
    def film(self) -> str: ...


C = TypeVar("C", bound=Named)


def split_clips(
    clips: Sequence[C], fractions: Sequence[float] = (0.5, 0.2, 0.3), seed: int = 0, *, by_film: bool = True
) -> tuple[list[C], ...]:
    """Divide clips at random into one list for each fraction. Each list gets at least one film.

    Args:
        clips: in any order.
        fractions: positive numbers.
        seed: of the division.
        by_film: keep all clips of a film in one list.

    Returns:
        The lists.

    Raises:
        ConfigError: there are fewer films than fractions, or a fraction is not positive.
    """
    if not fractions or min(fractions) <= 0:
        raise ConfigError(f"fractions of the clips must be positive numbers, got {tuple(fractions)}")
    groups: dict[str, list[C]] = {}
    for clip in sorted(clips, key=lambda clip: clip.name):
        groups.setdefault(clip.film if by_film else clip.name, []).append(clip)
    if len(groups) < len(fractions):
        unit, names = "films" if by_film else "clips", ", ".join(groups) or "none"
        more = "add clips, or split by shot" if by_film and len(clips) >= len(fractions) else "add clips"
        raise ConfigError(f"{len(fractions)} splits must have as many {unit}, got {len(groups)} ({names}); {more}")
    keys = [list(groups)[k] for k in np.random.default_rng(seed).permutation(len(groups))]
    parts: tuple[list[C], ...] = tuple([] for _ in fractions)
    for part, count in zip(parts, _shares(len(keys), fractions), strict=True):
        part += [clip for key in keys[:count] for clip in groups[key]]
        keys = keys[count:]
    return parts


def _shares(total: int, fractions: Sequence[float]) -> list[int]:
    """Divide `total` into whole numbers of at least 1; each unit goes to the share that is furthest below its due."""
    counts = [1] * len(fractions)
    for _ in range(total - len(counts)):
        lacks = [fraction / sum(fractions) * total - count for fraction, count in zip(fractions, counts, strict=True)]
        counts[lacks.index(max(lacks))] += 1
    return counts
