"""Tensors that several modules share, so that none of them may write into these (`nn.ReLU(inplace=True)` does).

torch counts the writes into a tensor and its views. To compare two counts costs next to nothing and sees every write,
whatever a module is called.
"""

from __future__ import annotations

from collections.abc import Iterator
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
        for tensor in (value,) if isinstance(value, Tensor) else _tensors(value):
            self._tensors.append(tensor)
            self._counts.append(_writes(tensor))

    def holds(self) -> bool:
        """Whether all tensors are as they were when they were added."""
        return all(_writes(tensor) == count for tensor, count in zip(self._tensors, self._counts, strict=True))

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

    return tree_map_only(Tensor, alias, value)


def _tensors(value: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


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
    return -1 if tensor.is_inference() else tensor._version
