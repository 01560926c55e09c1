"""Twins: frames that repeat the one before, as conversions between frame rates insert them."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

_EQUAL = 1.0  # greatest mean difference of twins in grey levels: a film is coded again after the conversion
_STANDS_OUT = 0.25  # greatest ratio to the differences around: a still scene as a whole has no twins
_USUAL = 0.8  # their quantile that counts, since half of the frames, or two thirds, can be twins
_AROUND = 6  # frames on either side


def mark_twins(clip: Iterable[Tensor]) -> Iterator[tuple[Tensor, bool]]:
    """Yield every frame, and whether it repeats the frame before; six frames later than they come.

    A twin differs from the frame before by less than one grey level on average, and by less than a quarter of what
    frames around it do (the 80 % quantile of 13 differences). So the frames of a still scene are no twins.

    Args:
        clip: frames `(3, height, width)` uint8.
    """
    frames: deque[Tensor] = deque()
    changes: deque[float] = deque([math.nan] * (2 * _AROUND + 1), maxlen=2 * _AROUND + 1)
    last: Tensor | None = None
    for number, frame in enumerate(itertools.chain(clip, [None] * _AROUND)):
        if frame is None:
            changes.append(math.nan)
        else:
            grey = frame.float().mean(0)
            changes.append(math.nan if last is None else float((grey - last).abs().mean()))
            frames.append(frame)
            last = grey
        if number >= _AROUND:
            usual = torch.tensor(changes).nanquantile(_USUAL).item()
            yield frames.popleft(), changes[_AROUND] < min(_EQUAL, _STANDS_OUT * usual)


def find_twins(clip: Iterable[Tensor]) -> list[int]:
    """Return the positions of the twins in a clip, ascending (see `mark_twins`)."""
    return [index for index, (_, twin) in enumerate(mark_twins(clip)) if twin]
