"""Tensors that several modules share, so that none of them may write into these (`nn.ReLU(inplace=True)` does).

torch counts the writes into a tensor and its views. To compare two counts costs next to nothing and sees every write,
whatever a module is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch
from torch.utils._pytree import tree_leaves, tree_map_only

from nas.errors import SpaceError


class Unchanged:
    """Watches tensors, also those inside of tuples, lists and dictionaries, for a write into one of them."""

    def __init__(self, *values: Any) -> None:
        self._tensors: list[Tensor] = []
        self._counts: list[object] = []
        for value in values:
            self.add(value)

    def add(self, value: Any) -> None:
        """Watch `value` too, from now on."""
        if torch.compiler.is_compiling():  # a graph has no counts; it is made of what has run without
            return
        if isinstance(value, Tensor):
            self._tensors.append(value)
            self._counts.append(_writes(value))
        elif isinstance(value, tuple | list | dict):
            for tensor in tree_leaves(value):
                if isinstance(tensor, Tensor):
                    self.add(tensor)

    def holds(self) -> bool:
        """Whether all tensors are as they were when they were added."""
        return [_writes(tensor) for tensor in self._tensors] == self._counts

    def require(self, name: object, label: str) -> None:
        """Raise `SpaceError`, which names the candidate `name` of `label`, for a tensor that has changed."""
        if not self.holds():
            raise SpaceError(f"'{name}' of '{label}' changes its input in place; use inplace=False")


def countable(value: Any) -> Any:
    """`value`, whose tensors `Unchanged` can watch.

    In inference mode torch counts nothing, so tensors made there become aliases of the same memory that count.
    """
    if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
        return value
    memory: dict[tuple[int, torch.dtype], Tensor] = {}

    def alias(tensor: Tensor) -> Tensor:
        if _functorch.is_batchedtensor(tensor):
            inner = alias(_functorch.get_unwrapped(tensor))
            where = _functorch.maybe_get_bdim(tensor), _functorch.maybe_get_level(tensor)
            return _functorch._add_batch_dim(inner, *where)
        if not tensor.is_inference() or tensor.layout is not torch.strided:
            return tensor
        storage = tensor.untyped_storage()
        key = (storage._cdata, tensor.dtype)
        with torch.inference_mode(False), torch.no_grad():
            if key not in memory:  # one for all views, so that they have one count
                memory[key] = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(storage)
            return memory[key].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    return _mapped(alias, value)


def _mapped(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if type(value) in (tuple, list):
        return type(value)([_mapped(function, item) for item in value])
    return tree_map_only(Tensor, function, value) if value else value


def _writes(tensor: Tensor) -> object:
    """How often something was written into a tensor; inside of `torch.func` transforms for each of their wrappers."""
    if not torch._C._are_functorch_transforms_active():
        return _count(tensor)
    counts = [_count(tensor)]
    while _functorch.is_functorch_wrapped_tensor(tensor):
        tensor = _functorch.get_unwrapped(tensor)
        counts.append(_count(tensor))
    return counts


def _count(tensor: Tensor) -> int:
    try:
        return tensor._version
    except RuntimeError:  # made in inference mode
        return -1
