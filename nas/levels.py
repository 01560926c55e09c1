"""A level of a multilevel optimization, as data."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
import torch
from torch import nn

from nas.errors import ConfigError, nearest
from nas.regularize import Term

Rate = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]

Precision = Literal["float32", "bfloat16"]
"""In what losses are evaluated: with `bfloat16` the operations that torch's autocast knows to bear it."""


class SGD(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="name", tag="sgd"):
    """Stochastic gradient descent."""

    lr: Rate
    momentum: Share = 0.0
    weight_decay: Rate = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("'nesterov' needs a 'momentum' above 0")

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, **_arguments(self))


class Adam(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="name", tag="adam"):
    """Adam (Kingma and Ba, 2015)."""

    lr: Rate
    betas: tuple[Share, Share] = (0.9, 0.999)
    weight_decay: Rate = 0.0

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, **_arguments(self))


class AdamW(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="name", tag="adamw"):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    lr: Rate
    betas: tuple[Share, Share] = (0.9, 0.999)
    weight_decay: Rate = 1e-2

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, **_arguments(self))


class Level(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one level optimizes, on which data, how and how often.

    Steps of a level are taken every `period` search steps, `inner_steps` at a time, once the share `warmup` of the run
    is over. Levels are listed from the lowest to the highest.
    """

    parameters: tuple[str, ...]
    """Patterns of parameter names (`arch.*`); one that starts with `!` excludes."""
    loss: str
    """Name of one of the task's losses."""
    split: str
    """Name of one of the task's splits."""
    optimizer: SGD | Adam | AdamW
    schedule: Literal["constant", "cosine"] = "constant"
    final_lr: float = 0.0
    """Where the cosine ends, as a share of `optimizer.lr`."""
    clip: float | None = None
    """The largest norm of the gradient."""
    period: int = 1
    inner_steps: int = 1
    accumulate: int = 1
    """Batches (micro-batches, each with a graph of its own) whose mean loss one step descends."""
    patience: int = 10
    """Steps in a row with a non-finite loss or gradient, none of them taken, before the run stops."""
    warmup: float = 0.0
    mode: Literal["train", "eval"] = "train"
    hypergradient: dict[str, dict[str, Any]] = {}
    """For levels below, by name: the method by which their response enters this level's gradient (else first order)."""
    regularizers: tuple[Term, ...] = ()

    def __post_init__(self) -> None:
        for field, valid, expected in (
            ("period", self.period >= 1, "at least 1"),
            ("inner_steps", self.inner_steps >= 1, "at least 1"),
            ("accumulate", self.accumulate >= 1, "at least 1"),
            ("patience", self.patience >= 1, "at least 1"),
            ("warmup", 0 <= self.warmup < 1, "a share in [0, 1)"),
            ("final_lr", 0 <= self.final_lr <= 1, "a share in [0, 1]"),
            ("clip", self.clip is None or self.clip > 0, "above 0"),
            ("regularizers", len({term.name for term in self.regularizers}) == len(self.regularizers), "one of a name"),
        ):
            if not valid:
                raise ValueError(f"'{field}' is {expected}, found {getattr(self, field)}")

    def minimises_as(self, other: Level) -> bool:
        """Whether another level minimises the same, on whatever data."""
        return all(getattr(self, field) == getattr(other, field) for field in ("loss", "mode", "regularizers"))

    def start(self, total: int) -> int:
        """The first search step after the warm-up, of `total`."""
        return math.ceil(round(self.warmup * total, 6))  # 0.07 * 100 is a little more than 7

    def due(self, step: int, total: int) -> bool:
        """Whether the level moves at this search step, of `total`."""
        since = step - self.start(total)
        return since >= 0 and since % self.period == self.period - 1

    def moves(self, step: int, total: int) -> int:
        """At how many search steps the level has moved once this one is over."""
        return max((step - self.start(total) + 1) // self.period, 0)

    def after(self, step: int, total: int, count: int = 0) -> tuple[int, int]:
        """The level's step number `count` after a search step: (its search step, its inner step).

        Count 0 is the next one; the steps go on as if the run had no end. Count -1 is the last one taken, or the last
        of the first search step at which the level moves if it has not moved yet.
        """
        moves = max(self.moves(step, total) + count // self.inner_steps, 0)
        return self.start(total) + (moves + 1) * self.period - 1, count % self.inner_steps

    def lr(self, step: int, total: int) -> float:
        """The learning rate at this search step: a cosine goes from `optimizer.lr` after the warm-up to its end."""
        if self.schedule == "constant":
            return self.optimizer.lr
        start = self.start(total)
        progress = max(step - start, 0) / max(total - start, 1)
        share = self.final_lr + (1 - self.final_lr) * (1 + math.cos(math.pi * progress)) / 2
        return self.optimizer.lr * share


def assign(levels: Mapping[str, Level], names: Sequence[str]) -> dict[str, list[str]]:
    """The parameter names each level owns.

    Raises `ConfigError` where there is no level, where a level owns no parameter, where two own the same one, and where
    a `hypergradient` names a level that is not below.
    """
    if not levels:
        raise ConfigError("there are no levels: nothing would be trained")
    owned: dict[str, list[str]] = {}
    owner: dict[str, str] = {}
    for level, config in levels.items():
        for below in config.hypergradient:
            if below not in owned:
                known = f"a level below it: {', '.join(owned)}" if owned else "none, since no level is below it"
                raise ConfigError(
                    f"level '{level}': 'hypergradient' names '{below}'{nearest(below, owned)}, expected {known}"
                    + _circle(levels, level, below)
                )
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


def _circle(levels: Mapping[str, Level], level: str, below: str) -> str:
    """What is wrong with the order, where `below` is another level, but not below."""
    if below not in levels or below == level:
        return ""
    order = f"; the order is {' < '.join(levels)}"
    return order + (", and each would answer the other" if level in levels[below].hypergradient else "")


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a parameter's name matches one of the patterns and none that starts with `!`."""
    wanted = any(fnmatch.fnmatchcase(name, p) for p in patterns if not p.startswith("!"))
    return wanted and not any(fnmatch.fnmatchcase(name, p[1:]) for p in patterns if p.startswith("!"))


def _family(name: str) -> str:
    return ".".join(name.split(".")[:2]) + (".*" if name.count(".") > 1 else "")


def _arguments(optimizer: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(optimizer, name) for name in optimizer.__struct_fields__}
