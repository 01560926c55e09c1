"""Hypergradient methods as configurations name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from nas.errors import ConfigError
from nas.hypergradient.response import Loss, Parameters, Response, Step
from nas.registry import checked, kind

Entry = str | Mapping[str, Any]
"""A name, or a mapping of `name`, arguments of the method, and `batches`."""


class Repeated:
    """Another method's response to the last batch that the level descended, in place of the batches of its next steps.

    Args:
        method: the other method. If it has a true attribute `reuse`, it gets the gradient of that step too.
    """

    def __init__(self, method: Response) -> None:
        self.method = method
        self.steps = getattr(method, "steps", 1)
        self.unrolls = getattr(method, "unrolls", False)
        self.reuse = getattr(method, "reuse", False)

    def __call__(self, loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
        return self.method(loss, own, others, step)


def create_response(entry: Entry, where: str) -> Response:
    """Create the method that an entry of a configuration names.

    Args:
        entry: a name, or a mapping such as `{name: neumann, terms: 20, batches: repeat}`. `batches` says what the
            level responds to: `next`, the batches of its next steps, or `repeat`, the batch of its last step.
        where: place of the entry in the configuration, for messages.

    Raises:
        UnknownNameError: no method of such a name.
        ConfigError: an argument is unknown or invalid, or `reuse` is stated without `batches: repeat`.
    """
    method: Response = kind("hypergradient").create(entry, where)
    batches = entry.get("batches", "next") if isinstance(entry, Mapping) else "next"
    if checked(batches, Literal["next", "repeat"], f"{where}.batches") == "repeat":
        return Repeated(method)
    if getattr(method, "reuse", False):
        raise ConfigError(f"{where}.batches must be repeat for 'reuse', which takes the gradient of the last batch")
    return method


def name_of(method: Response) -> str:
    """Return the registered name of a method, or the name of its class."""
    made = type(method.method if isinstance(method, Repeated) else method)
    return kind("hypergradient").name_of(made) or made.__name__
