"""Hypergradients: how a lower level answers the levels above it. One method a file, found by name.

The gradient of an upper loss is the plain derivative of `upper(a, response(a))`, where `a` are the upper parameters and
`response` returns the lower parameters *as a differentiable function of a*. A method is such a response, so levels
nest: the response of a middle level is taken at the response of the level below it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from nas.errors import UnknownNameError
from nas.hypergradient.closed import Closed
from nas.hypergradient.conjugate_gradient import ConjugateGradient
from nas.hypergradient.finite_difference import FiniteDifference
from nas.hypergradient.first_order import FirstOrder
from nas.hypergradient.gauss_newton import GaussNewton
from nas.hypergradient.implicit import Implicit
from nas.hypergradient.neumann import Neumann
from nas.hypergradient.protocol import Loss, Parameters, Response, Step
from nas.hypergradient.truncated import Truncated
from nas.hypergradient.unrolled import Unrolled

__all__ = ["RESPONSES", "Loss", "Parameters", "Response", "Step", "response"]

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


def response(name: str, **arguments: float) -> Response:
    """The method `name` with its arguments; raises `UnknownNameError` for a method or an argument, `ConfigError`,
    `TypeError` for a value of another type."""
    if name not in RESPONSES:
        raise UnknownNameError("hypergradient", name, RESPONSES)
    known = inspect.signature(RESPONSES[name]).parameters
    for argument in arguments:
        if argument not in known:
            raise UnknownNameError(f"argument of hypergradient '{name}'", argument, known)
    return RESPONSES[name](**arguments)
