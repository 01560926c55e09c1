"""A check that no module writes into a tensor that others share, as `nn.ReLU(inplace=True)` does.

torch counts the writes into a tensor and its views. A comparison of two counts is cheap and detects every write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nas.errors import SpaceError
from nas.kernels import torch_internals as internals


class Unchanged:
    """Detects writes into tensors, also into those within tuples, lists and dictionaries.

    Args:
        values: tensors or containers to watch.
    """

    def __init__(self, *values: Any) -> None:
        self._tensors: list[Tensor] = []
        self._counts: list[object] = []
        for value in values:
            self.add(value)

    def add(self, value: Any) -> None:
        """Watch another tensor or container."""
        if torch.compiler.is_compiling():  # a graph has no counts; the check runs without compilation
            return
        if isinstance(value, Tensor):
            self._tensors.append(value)
            self._counts.append(_writes(value))
        elif isinstance(value, tuple | list | dict):
            for tensor in internals.tree_leaves(value):
                if isinstance(tensor, Tensor):
                    self.add(tensor)

    def holds(self) -> bool:
        """Return whether no tensor changed since it was added."""
        return [_writes(tensor) for tensor in self._tensors] == self._counts

    def require(self, name: object, label: str) -> None:
        """Check that no tensor changed.

        Raises:
            SpaceError: a tensor changed; the message names the candidate `name` of `label`.
        """
        if not self.holds():
            raise SpaceError(f"'{name}' of '{label}' changes its input in place; use inplace=False")


def countable(value: Any) -> Any:
    """Return `value` with tensors that `Unchanged` can watch.

    torch does not count writes into tensors made in inference mode. They become aliases of the same memory whose writes
    torch counts.
    """
    if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
        return value
    memory: dict[tuple[int, torch.dtype], Tensor] = {}

    def alias(tensor: Tensor) -> Tensor:
        if internals.is_batched(tensor):
            return internals.rewrapped(alias(internals.unwrapped(tensor)), tensor)
        if not tensor.is_inference() or tensor.layout is not torch.strided:
            return tensor
        storage = tensor.untyped_storage()
        key = (internals.address_of(storage), tensor.dtype)
        with torch.inference_mode(False), torch.no_grad():
            if key not in memory:  # one for all views, which then share one count
                memory[key] = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(storage)
            return memory[key].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    return _mapped(alias, value)


def _mapped(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if type(value) in (tuple, list):
        return type(value)([_mapped(function, item) for item in value])
    return internals.tree_map_only(Tensor, function, value) if value else value


def _writes(tensor: Tensor) -> object:
    """Count the writes into a tensor; within `torch.func` transforms, into each of its wrappers."""
    if not internals.transforms_active():
        return _count(tensor)
    counts = [_count(tensor)]
    while internals.is_wrapped(tensor):
        tensor = internals.unwrapped(tensor)
        counts.append(_count(tensor))
    return counts


def _count(tensor: Tensor) -> int:
    try:
        return internals.version_of(tensor)
    except RuntimeError:  # made in inference mode
        return -1
