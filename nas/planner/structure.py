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

from collections.abc import Hashable

from torch import nn

from nas.primitives import Parallel, Zero

Chain = tuple[nn.Module, ...]

CHANNELWISE = {
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign),
    *(nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid),
    *(nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d),
}


def chain(module: nn.Module, *, first: bool = True) -> Chain | None:
    """The layers of a candidate, in order; None where the planner does not know it, so that it must run as it is.

    That is so for a layer of an unknown type, for a module with hooks, and for one that writes into its input where
    other candidates may use this too (`first` says whether they may): the candidate's own, and what layers that are
    shared make of it.
    """
    if watched(module) or (first and getattr(module, "inplace", False)):
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


def watched(module: nn.Module) -> bool:
    """Whether someone waits for the module to be called."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def is_zero(module: nn.Module) -> bool:
    """Whether a candidate is no connection."""
    return type(module) is Zero and not watched(module)


def is_channelwise(layer: nn.Module) -> bool:
    """Whether a layer treats every channel by itself, all alike, and has no state."""
    if type(layer) is nn.MaxPool2d:
        return not layer.return_indices
    return type(layer) in CHANNELWISE or getattr(type(layer), "channelwise", False) is True


def uses_batch(norm: nn.BatchNorm2d) -> bool:
    """Whether a batch norm normalizes by the statistics of the batch."""
    return norm.training or norm.running_mean is None


def is_shared(layer: nn.Module) -> bool:
    """Whether layers of equal keys do the same to the same input, so that one of them can stand for all."""
    if type(layer) is nn.BatchNorm2d:
        return not layer.affine and uses_batch(layer)
    return is_channelwise(layer)


def key(layer: nn.Module) -> Hashable:
    """Layers of equal keys compute the same function of their input, their parameters and their buffers."""
    if isinstance(layer, Parallel):
        return (Parallel, *(tuple(map(key, branch)) for branch in branches(layer)))
    settings = {name: value for name, value in vars(layer).items() if not name.startswith("_")}
    if not all(isinstance(value, str | int | float | tuple | None) for value in settings.values()):
        return (type(layer), id(layer))  # it holds what cannot be compared
    tensors = {name: None if t is None else t.shape for name, t in (layer._parameters | layer._buffers).items()}
    return (type(layer), *settings.items(), *tensors.items())


def branches(layer: Parallel) -> list[Chain]:
    """The chains of a known parallel layer."""
    return [chain(branch) or () for branch in layer]


def _known(layer: nn.Module) -> bool:
    if type(layer) is nn.Conv2d:
        return layer.padding_mode == "zeros"
    if type(layer) is nn.BatchNorm2d:
        return layer.momentum is not None
    if type(layer) is Parallel:
        return all(chain(branch) is not None for branch in layer)
    return is_channelwise(layer)
