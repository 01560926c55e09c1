"""Simulated computation: the memory and the FLOPs of a call, without computing anything large.

Inside of the context tensors, autograd and Python run as always. Operators on large tensors do not: their outputs are
allocated and never written, so that the system gives them no pages. A step that needs many times the memory of the
machine can be simulated within a few MiB. Views and operators on small tensors run, so that what the program reads back
from tensors (samples of a relaxation, for example) is there.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from nas.kernels.torch_internals import (
    UNDECLARED_VIEWS,
    OpOverload,
    TorchDispatchMode,
    address_of,
    aliases_of,
    is_mutable,
    packet_of,
    tree_flatten,
    tree_leaves,
    tree_map_only,
    tree_unflatten,
)

SMALL = 4096
"""Elements of the largest tensor whose values are computed."""

CPU = torch.device("cpu")


class _Spec(NamedTuple):
    """Form of an output."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @property
    def large(self) -> bool:
        return math.prod(self.shape) > SMALL


class _Outputs(NamedTuple):
    """Outputs of an operator: a list in which tensors are specs, and the structure that holds its items."""

    leaves: list[Any]
    structure: Any
    flops: int


class Simulation(TorchDispatchMode):  # type: ignore[no-untyped-call]  # of torch
    """Context that adds up the bytes of all storages that live, and the FLOPs of operators that are not computed.

    The numbers in large tensors are arbitrary, and small tensors that depend on large ones hold 1 (integers 0).

    Args:
        before: tensors that exist already and count.
    """

    def __init__(self, before: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of torch
        self.flops = 0
        """FLOPs of operators on large tensors; 1 multiply-add = 2 FLOPs."""
        self.calls = 0
        """Number of operators that are no views."""
        self.live = 0
        """Bytes of the storages that live now."""
        self.peak = 0
        """The largest number of bytes so far."""
        self._known: set[int] = set()
        self._outputs: dict[Any, _Outputs | None] = {}
        for tensor in before:
            self.add(tensor)

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        aliases = aliases_of(func)
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        elsewhere = [*(tensor.device for tensor in inputs), kwargs.get("device")]
        if (
            func in UNDECLARED_VIEWS
            or aliases.view
            or any(where is not None and torch.device(where) != CPU for where in elsewhere)
        ):
            return tree_map_only(Tensor, self.add, func(*args, **kwargs))
        self.calls += 1
        large = any(tensor.numel() > SMALL for tensor in inputs)
        if is_mutable(func):
            if not large:
                return func(*args, **kwargs)
            return aliases.written(args, kwargs)
        outputs = self._inferred(func, args, kwargs)
        if outputs is None or not (large or any(isinstance(o, _Spec) and o.large for o in outputs.leaves)):
            return tree_map_only(Tensor, self.add, func(*args, **kwargs))
        self.flops += outputs.flops
        made = [self.add(_made(leaf)) if isinstance(leaf, _Spec) else leaf for leaf in outputs.leaves]
        return tree_unflatten(made, outputs.structure)

    def add(self, tensor: Tensor) -> Tensor:
        """Count the storage of a tensor for as long as it lives; returns the tensor."""
        storage = tensor.untyped_storage()
        address = address_of(storage)
        if tensor.device == CPU and address not in self._known:
            size = storage.nbytes()
            self._known.add(address)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._remove, address, size)
        return tensor

    def _remove(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.live -= size

    def _inferred(self, func: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Outputs | None:
        """The outputs of an operator by its kernel for the meta device; None if that has none."""
        try:
            key = func, _key(args), _key(kwargs)
            if key in self._outputs:
                return self._outputs[key]
        except TypeError:  # an argument that cannot be hashed
            key = None
        found = _infer(func, args, kwargs)
        if key is not None:
            self._outputs[key] = found
        return found


def _key(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    if isinstance(value, list | tuple):
        return tuple(map(_key, value))
    if isinstance(value, dict):
        return tuple((name, _key(each)) for name, each in value.items())
    return type(value), value


def _infer(func: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Outputs | None:
    def ghost(value: Any) -> Any:
        if isinstance(value, Tensor):
            return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
        return torch.device("meta") if isinstance(value, torch.device) else value

    leaves, structure = tree_flatten((args, dict(kwargs)))
    ghosts, named = tree_unflatten([ghost(leaf) for leaf in leaves], structure)
    if not any(isinstance(leaf, Tensor) for leaf in leaves):
        named["device"] = torch.device("meta")
    try:
        result = func(*ghosts, **named)
    except (RuntimeError, TypeError):  # NotImplementedError is a RuntimeError
        return None
    count = flop_registry.get(packet_of(func))
    flops = 0 if count is None else int(count(*args, **kwargs, out_val=result))
    made, form = tree_flatten(result)
    specs = [_Spec(tuple(t.shape), t.stride(), t.dtype) if isinstance(t, Tensor) else t for t in made]
    return _Outputs(specs, form, flops)


def _made(spec: _Spec) -> Tensor:
    made = torch.empty_strided(spec.shape, spec.strides, dtype=spec.dtype)
    if spec.dtype.is_floating_point or spec.dtype == torch.bool:
        return made if spec.large else made.fill_(1)
    return made.zero_()
