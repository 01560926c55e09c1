"""What a number must be for a result to be kept: finite."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from nas.errors import DivergedError


@torch.no_grad()
def in_range(tensors: Iterable[Tensor]) -> bool:
    """Whether the norm of each tensor is a finite number: its values are, and their squares can be summed in its dtype.

    In float32 no value may be above 1.8e19: with such weights nothing could be computed any more.
    """
    alike: dict[tuple[torch.dtype, torch.device], list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.numel():
            alike[tensor.dtype, tensor.device].append(tensor)
    return all(bool(torch.stack(torch._foreach_norm(group)).isfinite().all()) for group in alike.values())


def broken(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds a value that is not finite, or None.

    The mask of an attention may hold -inf: a tensor without values above zero.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not (tensor.isfinite().all() or (tensor <= 0).all()):
            return name
    return None


def finite(values: Any) -> bool:
    """Whether all numbers of the tensors in containers are finite."""
    tensors = (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
    return all(bool(t.isfinite().all()) for t in tensors if t.is_floating_point())


def require_finite(outputs: Any, where: str) -> None:
    """Raise `DivergedError`, which says `where`, for outputs (also in containers) that are not finite."""
    if not finite(outputs):
        raise DivergedError(f"{where}: the network's output must be finite, got values that are not; train it again")
