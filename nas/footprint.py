"""What a computation takes: floating-point operations, and the memory of the tensors alive at its peak."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Footprint:
    """What one call took."""

    flops: int
    """Of convolutions, matrix products and attention; 1 multiply-add = 2 FLOPs."""
    memory: int
    """Bytes of tensors, at the peak, that were not there before; without the workspace of single operations."""
    seconds: float
    """Wall time."""


def footprint(call: Callable[[], object], before: Iterable[Tensor] = ()) -> Footprint:
    """Run `call` twice, timed and watched; `before` are tensors it uses that are there anyway.

    It should have run once already: what it keeps from its first run counts.
    """
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    with _Watch(before) as watch:
        call()
    return Footprint(watch.flops, watch.peak, seconds)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # of torch
    """Adds up the FLOPs of operations, and the bytes of the tensors that they make as long as these live.

    `torch.utils.flop_counter.FlopCounterMode` would do for the former, but fails where modules are called with leaves
    within a backward pass.
    """

    def __init__(self, before: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of torch
        self.flops = self.peak = self._now = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in before}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        return tree_map_only(Tensor, self._add, result)

    def _add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._remove, storage._cdata, storage.nbytes())
        return tensor

    def _remove(self, storage: int, size: int) -> None:
        self._known.discard(storage)
        self._now -= size
