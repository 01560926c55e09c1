"""What a candidate operation consists of: a chain of layers that the planner knows, or None.

An `nn.Sequential` of known layers needs nothing. A module of another class states its chain in a method `structure()`
that returns its layers in order, so that the class remains the one place that knows its inside:

>>> class Squeeze(nn.Module):
...     def structure(self): return [nn.ReLU(), self.convolution, self.norm]

Known layers are `nn.Conv2d`, `nn.BatchNorm2d`, the usual activations and poolings, `nas.primitives.Parallel`, and
module classes with an attribute `channelwise = True`: no parameters, no buffers, no randomness, four dimensions in and
out, each output channel computed from the input channel of the same number alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooked

from nas.mixed import MixedOperation, Node
from nas.primitives import Parallel, Zero

Chain = tuple[nn.Module, ...]

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

CHANNELWISE = {
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign),
    *(nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid),
    *(nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d),
}


def chain(module: nn.Module, *, first: bool = True) -> Chain | None:
    """The layers of a candidate, in order; None where the planner does not know it, so that it must run as it is.

    That is so for a layer of an unknown type, for an `altered` module, and for one that writes into its input where
    other candidates may use this too (`first` says whether they may): the candidate's own, and what layers that are
    shared make of it.
    """
    if altered(module) or (first and getattr(module, "inplace", False)):
        return None
    if type(module) is nn.Identity:
        return ()
    parts = parts_of(module)
    if parts is None:
        return (module,) if _known(module) else None
    layers: Chain = ()
    for part in parts:
        inner = chain(part, first=first and all(map(is_shared, layers)))
        if inner is None:
            return None
        layers += inner
    return layers


def parts_of(module: nn.Module) -> list[nn.Module] | None:
    """The modules that this one runs one after the other; None where it is a layer itself."""
    if type(module) is nn.Sequential:
        return list(module)
    structure = getattr(module, "structure", None)
    return list(structure()) if callable(structure) else None


def altered(module: nn.Module) -> bool:
    """Whether a call of the module is another than its class says: it has hooks, or a `forward` of its own."""
    return "forward" in vars(module) or any(vars(module)[name] for name in HOOKS)


def every_call_counts() -> bool:
    """Whether a hook waits for the calls of all modules."""
    return any(vars(hooked)[f"_global{name}"] for name in HOOKS)


def is_zero(module: nn.Module) -> bool:
    """Whether a candidate is no connection."""
    return type(module) is Zero and not altered(module)


def is_channelwise(layer: nn.Module) -> bool:
    """Whether a layer treats every channel by itself, all alike, and has no state."""
    if type(layer) is nn.MaxPool2d:
        return not layer.return_indices
    return type(layer) in CHANNELWISE or getattr(type(layer), "channelwise", False) is True


def uses_batch(norm: nn.BatchNorm2d) -> bool:
    """Whether a batch norm normalizes by the statistics of the batch."""
    return norm.training or (norm.running_mean is None and norm.running_var is None)


def is_shared(layer: nn.Module) -> bool:
    """Whether layers of equal keys do the same to the same input, so that one of them can stand for all."""
    if type(layer) is nn.BatchNorm2d:
        return layer.weight is None and uses_batch(layer)
    return is_channelwise(layer)


def key(layer: nn.Module) -> Hashable:
    """Layers of equal keys compute the same function of their input, their parameters and their buffers."""
    if isinstance(layer, Parallel):
        return (Parallel, *(tuple(map(key, branch)) for branch in branches(layer)))
    settings = {name: vars(layer)[name] for name in (*_settings(layer), "training")}
    if not all(isinstance(value, str | int | float | tuple | None) for value in settings.values()):
        return (type(layer), id(layer))  # it holds what cannot be compared
    tensors = {name: None if t is None else t.shape for name, t in (layer._parameters | layer._buffers).items()}
    return (type(layer), *settings.items(), *tensors.items())


def _settings(module: nn.Module) -> list[str]:
    """The names of what a module was told, its mode left out."""
    return [name for name in vars(module) if not name.startswith("_") and name != "training"]


def branches(layer: Parallel) -> list[Chain]:
    """The chains of a known parallel layer."""
    return [chain(branch) or () for branch in layer]


def _known(layer: nn.Module) -> bool:
    if type(layer) is nn.Conv2d:
        return layer.padding_mode == "zeros"
    if type(layer) is nn.BatchNorm2d:
        terms, statistics = (layer.weight, layer.bias), tuple(layer._buffers.values())
        return layer.momentum is not None and all(len({t is None for t in each}) == 1 for each in (terms, statistics))
    if type(layer) is Parallel:
        return all(chain(branch) is not None for branch in layer)
    return is_channelwise(layer)


class Assumed:
    """What a plan assumes of modules: their classes, settings, hooks, children, and shapes of tensors; not their modes.

    Modules of unknown classes are called as they are, whatever their settings.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._forwards = [(kind, kind.forward) for kind in dict.fromkeys(type(module) for module in modules)]
        self._views = list(map(_view, modules))
        self._shapes = [(module, _shapes(module)) for module in modules if type(module) in (nn.Conv2d, nn.BatchNorm2d)]

    def holds(self) -> bool:
        """Whether all is as it was."""
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
"""A module, its class, its attributes, how many they are (0: any number), and those that count."""


def _view(module: nn.Module) -> _View:
    known = (
        _known(module) or parts_of(module) is not None or type(module) in (nn.Conv2d, nn.BatchNorm2d, Parallel, Zero)
    )
    names = ["_modules", *HOOKS]
    if known:
        names += _settings(module)
    attributes, read = vars(module), itemgetter(*names)
    # Tables of hooks and children are changed in place.
    held = {name: copy.copy(v) if isinstance(v := attributes[name], dict | list | set) else v for name in names}
    counted = known or type(module) in (Node, MixedOperation)
    return module, type(module), attributes, len(attributes) * counted, read, read(held)


def _shapes(layer: nn.Module) -> list[torch.Size | None]:
    return [
        None if tensor is None else tensor.shape for tensor in (*layer._parameters.values(), *layer._buffers.values())
    ]
