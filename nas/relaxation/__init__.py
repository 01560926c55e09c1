"""Relaxations: how logits (arch parameters) become mixing weights. One a file, found by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from nas.errors import UnknownNameError
from nas.relaxation.softmax import Softmax

RELAXATIONS: Mapping[str, Callable[..., nn.Module]] = {"softmax": Softmax}


def relaxation(name: str, **arguments: float) -> nn.Module:
    """The relaxation `name`: a module that maps logits `(candidates,)` to mixing weights `(candidates,)` in [0, 1].

    In eval mode it is deterministic. Raises `UnknownNameError`.
    """
    if name not in RELAXATIONS:
        raise UnknownNameError("relaxation", name, RELAXATIONS)
    return RELAXATIONS[name](**arguments)
