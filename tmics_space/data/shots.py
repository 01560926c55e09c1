"""Which frames belong together: cuts within a film, and splits of clips that keep a film's shots on one side."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from nas.errors import ConfigError

_CUT = 30.0  # mean difference of a cut, of 255; fast pans stay below 20
_STANDS_OUT = 2.0  # times the median of the differences around it


def find_cuts(clip: Tensor) -> list[int]:
    """The frames at which another shot begins, ascending, of a clip (frames, 3, height, width) uint8.

    A cut is a mean absolute difference of neighbouring frames, in grey at 32x32, above 30 of 255 and above twice the
    median of those of the six frames around it.
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
    """The places in ascending frame numbers in front of which some are missing.

    They follow one another at the smallest step there is: every fifth frame has no gap, and a gap has room for one
    frame more, so that time stamps may tremble.
    """
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    gap = 2 * min(steps, default=0)
    return tuple(place for place, step in enumerate(steps, 1) if step >= gap)


def split_at_cuts(clip: Tensor, known: Collection[int] = ()) -> list[Tensor]:
    """The shots of a clip (frames, ...), as views of it; others are `known` to begin at these frames."""
    bounds = sorted({0, *find_cuts(clip), *known, len(clip)})
    return [clip[start:stop] for start, stop in itertools.pairwise(bounds)]


class Named(Protocol):
    """What can be split: something of a name, shot for a film."""

    @property
    def name(self) -> str: ...
    @property
    def film(self) -> str: ...


C = TypeVar("C", bound=Named)


def split_clips(
    clips: Sequence[C], fractions: Sequence[float] = (0.5, 0.2, 0.3), seed: int = 0, *, by_film: bool = True
) -> tuple[list[C], ...]:
    """Divide clips at random, whole films at a time unless `by_film` is false, into one list for each fraction.

    Each list gets at least one film; the order of `clips` does not matter. Raises `ConfigError` where there are fewer
    films than fractions, or a fraction is not positive.
    """
    if not fractions or min(fractions) <= 0:
        raise ConfigError(f"fractions of the clips are {tuple(fractions)}; expected positive numbers")
    groups: dict[str, list[C]] = {}
    for clip in sorted(clips, key=lambda clip: clip.name):
        groups.setdefault(clip.film if by_film else clip.name, []).append(clip)
    if len(groups) < len(fractions):
        unit, names = "films" if by_film else "clips", ", ".join(groups) or "none"
        more = "add clips, or split by shot" if by_film and len(clips) >= len(fractions) else "add clips"
        raise ConfigError(f"{len(fractions)} splits need as many {unit}, found {len(groups)} ({names}): {more}")
    keys = [list(groups)[k] for k in np.random.default_rng(seed).permutation(len(groups))]
    parts: tuple[list[C], ...] = tuple([] for _ in fractions)
    for part, count in zip(parts, _shares(len(keys), fractions), strict=True):
        part += [clip for key in keys[:count] for clip in groups[key]]
        keys = keys[count:]
    return parts


def _shares(total: int, fractions: Sequence[float]) -> list[int]:
    """Whole numbers of at least 1 that add up to `total`, each nearest to its fraction by what it lacks."""
    counts = [1] * len(fractions)
    for _ in range(total - len(counts)):
        lacks = [fraction / sum(fractions) * total - count for fraction, count in zip(fractions, counts, strict=True)]
        counts[lacks.index(max(lacks))] += 1
    return counts
