"""Tasks: the data, losses, metrics and use of the networks of a search space."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from nas.errors import ConfigError, UnknownNameError

TEST = "test"
"""The split that `Task.evaluate` scores by default."""


class Preview(NamedTuple):
    """What a network makes of one input, to look at."""

    title: str
    layers: Mapping[str, Tensor]
    """Frames (frames, 3, height, width) uint8 by name, of equal shape; first what went in, then what came out, then
    others worth comparing, such as the truth."""
    frame_rate: float = 12.5
    """Frames per second."""


class Task(Protocol):
    """What a search or a retraining needs to know besides the network. Build one with its configuration struct."""

    Config: ClassVar[type]
    """A msgspec struct: what the `task` section of a configuration may say besides `name`."""
    losses: Mapping[str, Callable[[nn.Module, Any], Tensor]]
    """Losses by name: (network, batch) to a scalar. The network may be a supernet."""
    score: str
    """The metric of `evaluate` that ranks networks; larger is better."""

    def batch(self, split: str, index: int) -> Any:
        """Batch number `index` of a split: a pure function of both and of the configured seed, so that a resumed run
        sees what the uninterrupted one would. Raises `ConfigError` for an unknown split."""

    def example(self) -> tuple[Tensor, ...]:
        """The inputs of one forward pass of batch size 1."""

    def evaluate(self, network: nn.Module, split: str = TEST) -> dict[str, float]:
        """Metrics on `test`, data that neither search nor retraining sees, or on another split, not augmented.

        The network is in eval mode, without gradients. A task that takes no `split` cannot be tuned.

        A task may have besides: `statement`, the text, shown below the metrics, that says how they are taken; `parts`,
        the metrics that the last call took of each part of the data, by its name; a method `previews(network)`, called
        in the same way, that returns a few `Preview`s for reports; a method `check(split)` that raises, before a
        training begins, if `evaluate` could not work at its end; a method `members(split)` that returns what a split
        consists of (a collection of names or numbers), so that splits that overlap are found; and a method
        `measure(network, batch)`, called as `evaluate`, that returns the metrics of one batch, among them the score.
        """

    def predict(self, network: nn.Module, source: Path, sink: Path, **options: Any) -> dict[str, float]:
        """Apply the network to what a user has (`source`), write the result to `sink`, return facts worth telling."""


R = TypeVar("R")
T = TypeVar("T", bound=type)
_tasks: dict[str, Any] = {}


def task(name: str) -> Callable[[T], T]:
    """Decorator: register a class of tasks by name; raises `ConfigError` where another class has the name."""

    def register(cls: T) -> T:
        other = _tasks.get(name)
        if other is not None and _origin(other) != _origin(cls):
            raise ConfigError(f"task '{name}' is registered twice: by {_origin(other)} and by {_origin(cls)}")
        _tasks[name] = cls
        return cls

    return register


def find_task(name: str) -> Any:
    """The class of tasks `name`: registered, an installed plugin's entry point, or `module:name` of an imported module.

    Raises `UnknownNameError` with the nearest name, `ConfigError` for a name claimed twice or a point of no class.
    """
    if name in _tasks:
        return _tasks[name]
    points = list(metadata.entry_points(group="nas.tasks"))
    values = sorted({point.value for point in points if point.name == name})
    if len(values) > 1:
        raise ConfigError(f"task '{name}' is registered twice: by {' and by '.join(values)}")
    if values:
        found = next(point for point in points if point.name == name).load()
        if not isinstance(found, type):
            raise ConfigError(f"entry point '{name}' is {values[0]}, {found!r}, expected a class of tasks")
        return found
    module, _, attribute = name.partition(":")
    found = getattr(sys.modules.get(module), attribute, None) if attribute else None
    if isinstance(found, type):
        return found
    hint = "register it with @nas.task.task, and load its module with --import MODULE"
    raise UnknownNameError("task", name, sorted({*_tasks, *(point.name for point in points)}), hint)


def of_split(method: Callable[..., R], split: str) -> Callable[..., R]:
    """A task's method `evaluate` or `check`, for a split; raises `ConfigError` if it takes none."""
    if "split" in inspect.signature(method).parameters:
        return functools.partial(method, split=split)
    if split == TEST:
        return method
    where = getattr(method, "__qualname__", repr(method))
    raise ConfigError(f"{where} must take the argument 'split' to score split '{split}'; add it to the task's method")


def _origin(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def placed(value: Any, device: torch.device) -> Any:
    """A batch, or anything that holds tensors in containers, on a device."""
    return tree_map_only(Tensor, lambda tensor: tensor.to(device, non_blocking=True), value)
