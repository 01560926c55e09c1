"""A level of a multilevel optimization, as data."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from nas.errors import ConfigError, nearest
from nas.multilevel.regularizers import complete_terms
from nas.registry import Count, Positive, Rate, Share, checked, kind

WARMUP = "warmup"
"""The argument of every schedule: the share of the steps in which the learning rate rises."""

Precision = Literal["float32", "bfloat16"]
"""Precision of losses: `bfloat16` uses it for the operations that torch's autocast lists."""


class Level(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one level optimizes, on which data, how and how often.

    A level takes `inner_steps` steps every `period` search steps, after the share `warmup` of the run. Levels are
    listed from the lowest to the highest. Optimizer, schedule, hypergradients and regularizers are names from the
    registry, with arguments; the level checks them, and completes them with their defaults.

    Raises:
        UnknownNameError: no optimizer, schedule, hypergradient or regularizer of such a name.
        ConfigError: one of their arguments is unknown, missing or invalid.
    """

    parameters: tuple[str, ...]
    """Patterns of parameter names (`arch.*`); a pattern that starts with `!` excludes."""
    loss: str
    """Name of one of the task's losses."""
    split: str
    """Name of one of the task's splits."""
    optimizer: dict[str, Any]
    """`{name: adam, lr: 1e-3}`."""
    schedule: Any = "constant"
    """How the learning rate changes: `cosine`, or `{name: cosine, final_lr: 0.1, warmup: 0.05}`. Every schedule takes
    `warmup`: the share of the level's steps in which the learning rate first rises linearly to the optimizer's."""
    clip: Positive | None = None
    """Largest norm of the gradient."""
    period: Count = 1
    inner_steps: Count = 1
    accumulate: Count = 1
    """Number of batches (micro-batches, each with its own graph) whose mean loss one step descends."""
    patience: Count = 10
    """Number of steps in a row, skipped for a non-finite loss or gradient, after which the run stops."""
    backoff: Share | None = None
    """Factor by which the learning rate is multiplied when `patience` ends, once in a run, in place of stopping."""
    warmup: Rate = 0.0
    mode: Literal["train", "eval"] = "train"
    hypergradient: dict[str, Any] = {}
    """`{lower: {name: unrolled, steps: 2}}`: for each lower level, the method by which its response enters the gradient
    (else first order)."""
    scale_free: bool = False
    """Minimize the logarithm of the loss, which must be above 0, in place of the loss. Its gradient `f_a / f` does not
    change if the loss is multiplied by a constant, so regularizers weigh against relative changes of the loss."""
    freezing: str | dict[str, Any] | None = None
    """Which candidate operations of the level stop learning, and when: `oles`, or `{name: oles, threshold: 0.4}`."""
    regularizers: tuple[dict[str, Any], ...] = ()
    """`{name: entropy, weight: 0.01}`; see `nas.multilevel.regularizers`."""

    def __post_init__(self) -> None:
        fields: dict[str, Any] = {
            "optimizer": kind("optimizer").complete(self.optimizer, "optimizer"),
            "schedule": _complete_schedule(self.schedule),
            "hypergradient": {
                below: kind("hypergradient").complete(entry, f"hypergradient.{below}")
                for below, entry in self.hypergradient.items()
            },
            "freezing": None if self.freezing is None else kind("freezing").complete(self.freezing, "freezing"),
            "regularizers": complete_terms(self.regularizers, "regularizers"),
        }
        checked(fields["optimizer"].get("lr"), float, "optimizer.lr")
        for name, value in fields.items():
            msgspec.structs.force_setattr(self, name, value)

    def minimises_as(self, other: Level) -> bool:
        """Return whether another level minimizes the same loss and regularizers, on any data."""
        fields = ("loss", "mode", "scale_free", "regularizers")
        return all(getattr(self, field) == getattr(other, field) for field in fields)

    def start(self, total: int) -> int:
        """Return the first search step after the warm-up, of `total`."""
        return math.ceil(round(self.warmup * total, 6))  # 0.07 * 100 is slightly above 7

    def due(self, step: int, total: int) -> bool:
        """Return whether the level moves at this search step, of `total`."""
        since = step - self.start(total)
        return since >= 0 and since % self.period == self.period - 1

    def moves(self, step: int, total: int) -> int:
        """Return at how many search steps the level moves, up to and including this one."""
        return max((step - self.start(total) + 1) // self.period, 0)

    def after(self, step: int, total: int, count: int = 0) -> tuple[int, int]:
        """Return (search step, inner step) of the level's step number `count` after a search step.

        Count 0 is the next step; steps continue beyond the end of the run. Count -1 is the last step taken, or the last
        step of the first search step at which the level moves if it has not moved yet.
        """
        moves = max(self.moves(step, total) + count // self.inner_steps, 0)
        return self.start(total) + (moves + 1) * self.period - 1, count % self.inner_steps

    def lr(self, step: int, total: int) -> float:
        """Return the learning rate at this search step: the optimizer's, times the schedule's share.

        Of the level's n steps, the first `round(schedule.warmup * n)` rise linearly, the last of them to the
        optimizer's rate; the schedule covers the others.
        """
        done, length = max(step - self.start(total), 0), max(total - self.start(total), 1)
        arguments = dict(self.schedule)
        rising: int = round(arguments.pop(WARMUP, 0.0) * length)
        rate: float = self.optimizer["lr"]
        if done < rising:
            return rate * ((done + 1) / rising)
        progress = (done - rising) / max(length - rising, 1)
        share: float = kind("schedule").find(arguments.pop("name"))(progress, **arguments)
        return rate * share


def _complete_schedule(entry: Any) -> dict[str, Any]:
    """The schedule with its defaults, and with `warmup`, which all schedules take, if it is given."""
    if not isinstance(entry, Mapping) or WARMUP not in entry:
        return kind("schedule").complete(entry, "schedule")
    own = {key: value for key, value in entry.items() if key != WARMUP}
    share = checked(entry[WARMUP], Rate, f"schedule.{WARMUP}")
    return {**kind("schedule").complete(own, "schedule"), WARMUP: share}


def assign(levels: Mapping[str, Level], names: Sequence[str]) -> dict[str, list[str]]:
    """Return the parameter names that each level owns.

    Args:
        levels: by name, from the lowest to the highest.
        names: the model's parameters.

    Raises:
        ConfigError: there is no level, a level owns no parameter, two levels own the same one, or a `hypergradient`
            names a level that is not below.
    """
    if not levels:
        raise ConfigError("there are no levels: nothing would be trained")
    owned: dict[str, list[str]] = {}
    owner: dict[str, str] = {}
    for level, config in levels.items():
        for below in config.hypergradient:
            if below not in owned:
                raise _below(levels, level, below, owned)
        owned[level] = [name for name in names if matches(name, config.parameters)]
        if not owned[level]:
            families = dict.fromkeys(_family(name) for name in names)
            raise ConfigError(
                f"level '{level}' owns no parameters: none matches {', '.join(config.parameters) or 'an empty list'};"
                f" there are {', '.join(sorted(families)) or 'none'}"
            )
        for name in owned[level]:
            if name in owner:
                raise ConfigError(f"levels '{owner[name]}' and '{level}' both own the parameter '{name}'")
            owner[name] = level
    return owned


def _below(levels: Mapping[str, Level], level: str, below: str, lower: Mapping[str, object]) -> ConfigError:
    """The error of a hypergradient that names a level which is not below."""
    expected = f"name a level below it ({', '.join(lower)})" if lower else "be left out, since no level is below it"
    message = f"level '{level}': 'hypergradient' must {expected}, got '{below}'{nearest(below, lower)}"
    if below in levels and below != level:
        message += f"; the order is {' < '.join(levels)}"
        if level in levels[below].hypergradient:
            message += ", and each would respond to the other"
    return ConfigError(message)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a parameter's name matches one of the patterns, and none of those that start with `!`."""
    wanted = any(fnmatch.fnmatchcase(name, p) for p in patterns if not p.startswith("!"))
    return wanted and not any(fnmatch.fnmatchcase(name, p[1:]) for p in patterns if p.startswith("!"))


def _family(name: str) -> str:
    return ".".join(name.split(".")[:2]) + (".*" if name.count(".") > 1 else "")
