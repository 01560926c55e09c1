"""A task's network applied to a user's files, with options by name."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.errors import ConfigError, nearest
from nas.kernels.device import placed
from nas.kernels.finite import require_finite
from nas.registry import checked
from nas.run.task import Task


def predict(
    task: Task,
    name: str,
    network: nn.Module,
    source: Path,
    sink: Path,
    options: Mapping[str, Any],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Call the method `predict` of a task with those arguments that it takes.

    Args:
        task: the task.
        name: of the task, for messages.
        network: in eval mode.
        source: the file or folder to read.
        sink: the file or folder to write.
        options: the user's, by name; converted by the annotations of the method.
        progress: called with (done, total) if the method takes it.

    Raises:
        ConfigError: the task has no such method, does not take an option, needs one that is missing, or cannot
            convert its value.
        DivergedError: an output of the network is not finite.
    """
    where = f"predict of task '{name}'"
    if not task.has("predict"):
        raise ConfigError(
            f"task '{name}' cannot predict: {type(task).__qualname__} has no method predict(network, source, sink)"
        )
    method = task.predict
    offered = {"tile": None, "bfloat16": False, "progress": progress}
    arguments = options_for(method, options, where, offered, positional=3, hidden=("progress",))
    hook = network.register_forward_hook(lambda module, inputs, output: require_finite(output, f"{sink}"))
    with hook:
        return method(network, source, sink, **arguments) or {}


def require_fitting(network: nn.Module, task: Task, where: str) -> None:
    """Raise `ConfigError`, beginning with `where`, unless the network can process the task's example."""
    example = placed(task.example(), next(network.parameters()).device)
    try:
        with torch.no_grad():
            network(*example)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:  # what modules raise for other shapes
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in example)
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{where}: the network must accept inputs of shape {shapes}, got: {reason}") from error


def _kinds(method: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a method, as far as they are known when the program runs."""
    try:
        return typing.get_type_hints(method, include_extras=True)
    except NameError:
        return {}


def options_for(
    method: Callable[..., Any],
    options: Mapping[str, Any],
    where: str,
    offered: Mapping[str, Any],
    *,
    positional: int,
    hidden: Collection[str] = (),
) -> dict[str, Any]:
    """Return the keyword arguments of a task's method: what the command offers, and what the user gives.

    Args:
        method: of a task.
        options: the user's, by name; converted by the annotations of the method.
        where: the start of messages.
        offered: arguments of the command, passed if the method takes them and the user does not give them.
        positional: the number of leading arguments that the caller passes.
        hidden: names that messages do not list among the options.

    Raises:
        ConfigError: the method does not take an option, needs one that is missing, or a value cannot be converted.
    """
    parameters = list(inspect.signature(method).parameters.values())
    named = {p.name: p for p in parameters[positional:] if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    any_name = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for option in options:
        if option not in named and not any_name:
            known = [known for known in named if known not in hidden]
            raise ConfigError(
                f"{where} takes no '{option}'{nearest(option, known)}; it takes {', '.join(known) or 'no options'}"
            )
    kinds = _kinds(method)
    given = {option: checked(value, kinds.get(option, Any), f"{where}: {option}") for option, value in options.items()}
    arguments = {key: value for key, value in offered.items() if any_name or key in named} | given
    for parameter in named.values():
        if parameter.default is parameter.empty and parameter.name not in arguments:
            raise ConfigError(f"{where} needs the option '{parameter.name}': give {parameter.name}=VALUE")
    return arguments
