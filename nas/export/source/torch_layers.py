"""Layers of torch as the calls that make them, checked by making them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nas.errors import ExportError

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
"""Layers that are made from what they hold."""
PLAIN_STATE = frozenset(vars(nn.Module()))
"""The attributes that every module has."""


def torch_base(cls: type[nn.Module]) -> type[nn.Module]:
    """The class of torch that a class of modules is, or derives from first."""
    return next(base for base in cls.__mro__ if base.__module__.partition(".")[0] == "torch")


def arguments(module: nn.Module, base: type[nn.Module], where: str) -> dict[str, Any]:
    """The arguments by which `base`, a layer of torch, makes what `module` is as one; defaults are left out.

    Raises `ExportError` for a layer that its attributes do not tell the arguments of.
    """
    given: dict[str, Any] = {}
    for name, parameter in _signature(base).items():
        value = getattr(module, name, parameter.default)
        if isinstance(value, Tensor):
            value = True  # such as `bias`
        elif value is None and parameter.default is True:
            value = False
        if value is parameter.empty:
            raise ExportError(
                f"{where}: a {base.__name__} does not tell its argument '{name}', so it cannot be written"
            )
        if name in ("device", "dtype") or _equal(value, parameter.default):
            continue
        given[name] = value
    like = next((t for t in module.parameters(recurse=False) if t.dtype != torch.get_default_dtype()), None)
    if like is not None and "dtype" in _signature(base):
        given["dtype"] = like.dtype
    without_bias = {
        name: value for name, value in given.items() if name != "bias"
    }  # of a norm that has no affine terms
    for full in (without_bias, given):
        for candidate in (_simplified(full, base), full):
            if not differences(module, base, candidate):
                return candidate
    different = ", ".join(sorted(differences(module, base, given)))
    raise ExportError(f"{where}: a {base.__name__} that was changed after it was made ({different}) cannot be written")


def differences(module: nn.Module, base: type[nn.Module], given: Mapping[str, Any]) -> set[str]:
    """The attributes in which a new layer differs from `module`; those that it lacks do not count."""
    made = make(base, given)
    found = {
        name
        for name, value in vars(made).items()
        if name not in PLAIN_STATE
        and not name.startswith("_flat_weight")  # these list an RNN's parameters
        and not _equal(value, vars(module).get(name, inspect.Parameter.empty))
    }
    for name, tensor in (*made.named_parameters(recurse=False), *made.named_buffers(recurse=False)):
        mine = getattr(module, name, None)
        if not isinstance(mine, Tensor) or (mine.shape, mine.dtype) != (tensor.shape, tensor.dtype):
            found.add(name)
    if type(module) is base:
        found |= {name for name in vars(module) if name not in vars(made) and name not in PLAIN_STATE}
        found |= dict(module.named_parameters()).keys() ^ dict(made.named_parameters()).keys()
        found |= dict(module.named_buffers()).keys() ^ dict(made.named_buffers()).keys()
    return found


def make(base: type[nn.Module], given: Mapping[str, Any]) -> nn.Module:
    """A layer without values."""
    with torch.device("meta"):
        return base(**given)


def positional(base: type[nn.Module]) -> set[str]:
    """The names of the arguments that are given by position: those without a default."""
    return {name for name, parameter in _signature(base).items() if parameter.default is parameter.empty}


def _signature(base: type[nn.Module]) -> dict[str, inspect.Parameter]:
    """The parameters of a layer: its own, or those of the first class above that names some."""
    for cls in base.__mro__:
        found = dict(list(inspect.signature(vars(cls).get("__init__", nn.Module.__init__)).parameters.items())[1:])
        named = {n: p for n, p in found.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        if issubclass(base, nn.RNNBase):
            named.pop("mode", None)  # an LSTM is one
        if named or cls is nn.Module:
            return named
    return {}


def _simplified(given: Mapping[str, Any], base: type[nn.Module]) -> dict[str, Any]:
    """Arguments with `(3, 3)` written as 3, as most layers let one, and without what then is a default."""
    simple = {name: _one(value) for name, value in given.items()}
    defaults = {name: parameter.default for name, parameter in _signature(base).items()}
    return {n: v for n, v in simple.items() if n not in defaults or not _equal(v, defaults[n])}


def _one(value: Any) -> Any:
    plain = isinstance(value, tuple) and value and all(type(v) is int and v == value[0] for v in value)
    return value[0] if plain else value


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return a is b
    return type(a) is type(b) and bool(a == b)
