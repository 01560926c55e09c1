"""Relaxations: how logits (arch parameters) become mixing weights. One a file, found by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from torch import nn

from nas.errors import ConfigError, UnknownNameError
from nas.relaxation.gumbel import Gumbel
from nas.relaxation.softmax import Softmax

RELAXATIONS: Mapping[str, Callable[..., nn.Module]] = {"softmax": Softmax, "gumbel": Gumbel}


def relaxation(name: str, **arguments: float) -> nn.Module:
    """The relaxation `name`: a module that maps logits `(candidates,)` to mixing weights `(candidates,)` in [0, 1].

    It is deterministic; one that draws candidates at random is a `nas.relaxation.sampling.Sampling` besides. Raises
    `UnknownNameError` for a name or an argument that does not exist, and `ConfigError` for a value out of range.
    """
    if name not in RELAXATIONS:
        raise UnknownNameError("relaxation", name, RELAXATIONS)
    accepted = inspect.signature(RELAXATIONS[name]).parameters
    for argument, value in arguments.items():
        if argument not in accepted:
            raise UnknownNameError(f"argument of relaxation '{name}'", argument, accepted)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"'{argument}' of relaxation '{name}' is a number, found {value!r}")
    return RELAXATIONS[name](**arguments)
