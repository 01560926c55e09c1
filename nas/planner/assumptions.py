"""What the planner assumes of the modules of a cell, and whether it still holds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import nn

from nas.kernels.torch_internals import HOOKS, TABLE_OF_CHILDREN, tables_of
from nas.planner.known_layers import is_known, parts_of, settings_of
from nas.space.mixed import MixedOperation, Node
from nas.space.partial import PartialOperation
from nas.space.primitives import Parallel, Zero


class Assumptions:
    """Classes, settings, hooks, children and shapes of tensors of modules, but not their modes.

    Settings of unknown classes do not matter: the planner only calls such modules.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._forwards = [(kind, kind.forward) for kind in dict.fromkeys(type(module) for module in modules)]
        self._views = list(map(_view, modules))
        self._shapes = [(module, _shapes(module)) for module in modules if type(module) in (nn.Conv2d, nn.BatchNorm2d)]

    def holds(self) -> bool:
        """Return whether nothing has changed."""
        try:
            for module, kind, attributes, count, read, values in self._views:
                if type(module) is not kind or read(attributes) != values or (count and len(attributes) != count):
                    return False
        except (KeyError, RuntimeError, TypeError, ValueError):  # an attribute is gone, or cannot be compared
            return False
        if any(kind.forward is not forward for kind, forward in self._forwards):
            return False
        return all(_shapes(module) == shapes for module, shapes in self._shapes)


_View = tuple[nn.Module, type, dict[str, Any], int, Callable[[dict[str, Any]], Any], Any]
"""A module, its class, its attributes, their number (0: any), and a function that reads those that matter."""


def _view(module: nn.Module) -> _View:
    known = (
        is_known(module) or parts_of(module) is not None or type(module) in (nn.Conv2d, nn.BatchNorm2d, Parallel, Zero)
    )
    names = [TABLE_OF_CHILDREN, *HOOKS]
    if known:
        names += settings_of(module)
    attributes, read = vars(module), itemgetter(*names)
    # PyTorch changes tables of hooks and children in place.
    held = {name: copy.copy(v) if isinstance(v := attributes[name], dict | list | set) else v for name in names}
    counted = known or type(module) in (Node, MixedOperation, PartialOperation)
    return module, type(module), attributes, len(attributes) * counted, read, read(held)


def _shapes(layer: nn.Module) -> list[torch.Size | None]:
    parameters, buffers, _ = tables_of(layer)
    return [None if tensor is None else tensor.shape for tensor in (*parameters.values(), *buffers.values())]
