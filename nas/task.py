"""Tasks: the data, losses, metrics and use of the networks of a search space."""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import msgspec
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from nas import plugins
from nas.errors import ConfigError, UnknownNameError, nearest
from nas.finite import require_finite

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
        """Apply the network to what a user has (`source`), write the result to `sink`, return facts worth telling.

        A task may do without this method. `options` stands for keyword arguments of its own. The command gives those
        named `progress` (a function to call with (done, in all)), `tile` and `bfloat16`; the user gives all others as
        `name=value`, converted by their annotations (see `apply`).
        """


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

    Raises `UnknownNameError` with the nearest name, `ConfigError` for a name claimed twice, and for a point that cannot
    be imported or is no class.
    """
    if name in _tasks:
        return _tasks[name]
    points = list(metadata.entry_points(group="nas.tasks"))
    values = sorted({point.value for point in points if point.name == name})
    if len(values) > 1:
        raise ConfigError(f"task '{name}' is registered twice: by {' and by '.join(values)}")
    if values:
        found = plugins.load(next(point for point in points if point.name == name), "task")
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


def apply(
    task: Any,
    name: str,
    network: nn.Module,
    source: Path,
    sink: Path,
    options: Mapping[str, Any],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Call the method `predict` of the task `name` with those arguments that it takes.

    Raises `ConfigError` if the task has no such method, for an option that it does not take, for one that it needs and
    is not given, and for a value that does not fit; `DivergedError` if an output of the network is not finite.
    """
    method = getattr(task, "predict", None)
    where = f"predict of task '{name}'"
    if method is None:
        found = type(task)
        raise ConfigError(
            f"task '{name}' cannot predict: {found.__qualname__} has no method predict(network, source, sink)"
        )
    parameters = list(inspect.signature(method).parameters.values())
    named = {p.name: p for p in parameters[3:] if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    any_name = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for option in options:
        if option not in named and not any_name:
            known = [known for known in named if known != "progress"]
            raise ConfigError(
                f"{where} takes no '{option}'{nearest(option, known)}; it takes {', '.join(known) or 'no options'}"
            )
    kinds = _kinds(method)
    given = {option: _fitting(where, option, value, kinds.get(option, Any)) for option, value in options.items()}
    offered = {"tile": None, "bfloat16": False, "progress": progress}
    arguments = {key: value for key, value in offered.items() if any_name or key in named} | given
    for parameter in named.values():
        if parameter.default is parameter.empty and parameter.name not in arguments:
            raise ConfigError(f"{where} needs the option '{parameter.name}': give {parameter.name}=VALUE")
    hook = network.register_forward_hook(lambda module, inputs, output: require_finite(output, f"{sink}"))
    with hook:
        return method(network, source, sink, **arguments) or {}


def _kinds(method: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a method, as far as they are known when the program runs."""
    try:
        return typing.get_type_hints(method, include_extras=True)
    except NameError:
        return {}


def _fitting(where: str, option: str, value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        message = str(error).replace("`", "'")
        raise ConfigError(f"{where}: {option}: {message}, got {value!r}") from error
    except TypeError:  # an annotation of another kind than data has
        return value


def _origin(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def placed(value: Any, device: torch.device) -> Any:
    """A batch, or anything that holds tensors in containers, on a device."""
    return tree_map_only(Tensor, lambda tensor: tensor.to(device, non_blocking=True), value)
