"""Which layers a candidate operation consists of, and what the planner knows about a layer.

An `nn.Sequential` of known layers needs nothing. A module of another class returns its layers in order from a method
`structure()`, so that this class remains the one place that knows them:

>>> class Squeeze(nn.Module):
...     def structure(self): return [nn.ReLU(), self.convolution, self.norm]

Known layers are `nn.Conv2d`, `nn.BatchNorm2d`, the usual activations and poolings, `nas.space.primitives.Parallel`, and
module classes with an attribute `channelwise = True`. A channelwise layer has no parameters, no buffers and no
randomness, takes and returns four dimensions, and computes each output channel from the input channel of the same
number alone.
"""

from __future__ import annotations

from collections.abc import Hashable

from torch import nn

from nas.kernels.torch_internals import has_hooks, tables_of
from nas.space.primitives import Parallel, Zero

Layers = tuple[nn.Module, ...]
"""Layers that run one after the other."""

CHANNELWISE = {
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign),
    *(nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid),
    *(nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d),
}


def layers_of(module: nn.Module, *, first: bool = True) -> Layers | None:
    """Return the layers of a candidate, in order; None if it must run as a whole.

    A candidate runs as a whole if it has a layer of an unknown type, an `altered` module, or a layer that writes into
    an input that other candidates may use: the candidate's own input, or the output of shared layers.

    Args:
        module: a candidate, or a part of one.
        first: whether other candidates may use the module's input.
    """
    if altered(module) or (first and getattr(module, "inplace", False)):
        return None
    if type(module) is nn.Identity:
        return ()
    parts = parts_of(module)
    if parts is None:
        return (module,) if is_known(module) else None
    layers: Layers = ()
    for part in parts:
        inner = layers_of(part, first=first and all(map(is_shared, layers)))
        if inner is None:
            return None
        layers += inner
    return layers


def parts_of(module: nn.Module) -> list[nn.Module] | None:
    """Return the modules that this one runs one after the other; None if it is a layer itself."""
    if type(module) is nn.Sequential:
        return list(module)
    structure = getattr(module, "structure", None)
    return list(structure()) if callable(structure) else None


def altered(module: nn.Module) -> bool:
    """Return whether a call differs from what the class defines: the module has hooks, or a `forward` of its own."""
    return "forward" in vars(module) or has_hooks(module)


def is_zero(module: nn.Module) -> bool:
    """Return whether a candidate is no connection."""
    return type(module) is Zero and not altered(module)


def is_channelwise(layer: nn.Module) -> bool:
    """Return whether a layer computes each channel alone, all in the same way, and has no state."""
    if type(layer) is nn.MaxPool2d:
        return not layer.return_indices
    return type(layer) in CHANNELWISE or getattr(type(layer), "channelwise", False) is True


def uses_batch(norm: nn.BatchNorm2d) -> bool:
    """Return whether a batch norm uses the statistics of the batch."""
    return norm.training or (norm.running_mean is None and norm.running_var is None)


def is_shared(layer: nn.Module) -> bool:
    """Return whether layers of equal keys have equal outputs for equal inputs, so that one of them is enough."""
    if type(layer) is nn.BatchNorm2d:
        return layer.weight is None and uses_batch(layer)
    return is_channelwise(layer)


def key(layer: nn.Module) -> Hashable:
    """Return a key: layers of equal keys compute the same function of input, parameters and buffers."""
    if isinstance(layer, Parallel):
        return (Parallel, *(tuple(map(key, branch)) for branch in branches(layer)))
    settings = {name: vars(layer)[name] for name in (*settings_of(layer), "training")}
    if not all(isinstance(value, str | int | float | tuple | None) for value in settings.values()):
        return (type(layer), id(layer))  # a setting that cannot be compared
    held = tables_of(layer)
    tensors = {name: None if t is None else t.shape for name, t in (held.parameters | held.buffers).items()}
    return (type(layer), *settings.items(), *tensors.items())


def settings_of(module: nn.Module) -> list[str]:
    """Return the names of a module's settings, without its mode."""
    return [name for name in vars(module) if not name.startswith("_") and name != "training"]


def branches(layer: Parallel) -> list[Layers]:
    """Return the layers of each branch of a known parallel layer."""
    return [layers_of(branch) or () for branch in layer]


def is_known(layer: nn.Module) -> bool:
    """Return whether a module is a known layer."""
    if type(layer) is nn.Conv2d:
        return layer.padding_mode == "zeros"
    if type(layer) is nn.BatchNorm2d:
        terms, statistics = (layer.weight, layer.bias), tuple(tables_of(layer).buffers.values())
        return layer.momentum is not None and all(len({t is None for t in each}) == 1 for each in (terms, statistics))
    if type(layer) is Parallel:
        return all(layers_of(branch) is not None for branch in layer)
    return is_channelwise(layer)
