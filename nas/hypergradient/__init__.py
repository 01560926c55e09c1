"""Hypergradients: how a lower level answers the levels above it. One method a file, found by name.

The gradient of an upper loss is the plain derivative of `upper(a, response(a))`, where `a` are the upper parameters and
`response` returns the lower parameters *as a differentiable function of a*. A method is such a response, so levels
nest: the response of a middle level is taken at the response of the level below it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from nas.errors import ConfigError, UnknownNameError
from nas.hypergradient.closed import Closed
from nas.hypergradient.conjugate_gradient import ConjugateGradient
from nas.hypergradient.finite_difference import FiniteDifference
from nas.hypergradient.first_order import FirstOrder
from nas.hypergradient.gauss_newton import GaussNewton
from nas.hypergradient.implicit import Implicit
from nas.hypergradient.neumann import Neumann
from nas.hypergradient.protocol import Loss, Parameters, Response, Step
from nas.hypergradient.repeated import Repeated
from nas.hypergradient.truncated import Truncated
from nas.hypergradient.unrolled import Unrolled

__all__ = ["RESPONSES", "Loss", "Parameters", "Repeated", "Response", "Step", "name_of", "response"]

RESPONSES: Mapping[str, Callable[..., Response]] = {
    "first_order": FirstOrder,
    "unrolled": Unrolled,
    "truncated": Truncated,
    "finite_difference": FiniteDifference,
    "gauss_newton": GaussNewton,
    "neumann": Neumann,
    "conjugate_gradient": ConjugateGradient,
    "implicit": Implicit,
    "closed": Closed,
}


def response(name: str, *, batches: str = "next", **arguments: Any) -> Response:
    """The method `name` with its arguments.

    Args:
        batches: what the level responds to: `next`, the batches of its next steps, or `repeat`, the one that it has
            just descended, over and over.

    Raises `UnknownNameError` for a method or an argument, `ConfigError`, `TypeError` for a value of another type.
    """
    if name not in RESPONSES:
        raise UnknownNameError("hypergradient", name, RESPONSES)
    known = inspect.signature(RESPONSES[name]).parameters
    for argument in arguments:
        if argument not in known:
            raise UnknownNameError(f"argument of hypergradient '{name}'", argument, [*known, "batches"])
    if batches not in ("next", "repeat"):
        raise ConfigError(f"'batches' of hypergradient '{name}' must be next or repeat, got {batches!r}")
    method = RESPONSES[name](**arguments)
    if batches == "repeat":
        return Repeated(method)
    if getattr(method, "reuse", False):
        raise ConfigError(
            f"hypergradient '{name}' with 'reuse' takes the gradient of the batch just descended; add batches: repeat"
        )
    return method


def name_of(method: Response) -> str:
    """The name of a method."""
    kind = type(method.method if isinstance(method, Repeated) else method)
    return next((name for name, known in RESPONSES.items() if known is kind), kind.__name__)
