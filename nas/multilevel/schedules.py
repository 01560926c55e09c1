"""Schedules of learning rates as configurations name them.

A schedule is a function of progress, the share in [0, 1] of a level's steps after all warm-ups that are done, and of
keyword arguments. It returns the share of the optimizer's `lr` that the step uses. In a configuration every schedule
also takes `warmup`, a linear rise of the learning rate. `Level.lr` computes it, so no schedule defines it.

Example:
    >>> @nas.register("schedule", "linear")
    ... def linear(progress: float, /, *, final_lr: float = 0.0) -> float:
    ...     return 1 + progress * (final_lr - 1)
"""

from __future__ import annotations

import math
from typing import Annotated

import msgspec


def constant(progress: float, /) -> float:
    """Return 1: the learning rate does not change."""
    return 1.0


def cosine(progress: float, /, *, final_lr: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0) -> float:
    """Return a share that falls from 1 to `final_lr` by half a cosine (Loshchilov and Hutter, ICLR 2017, eq. 5)."""
    return final_lr + (1 - final_lr) * (1 + math.cos(math.pi * progress)) / 2
