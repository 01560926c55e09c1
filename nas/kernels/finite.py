"""Checks that the numbers of a result are finite, or equal with not-a-number included."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from nas.errors import DivergedError
from nas.kernels.torch_internals import foreach_norm, tree_leaves


@torch.no_grad()
def in_range(tensors: Iterable[Tensor]) -> bool:
    """Return whether the norm of each tensor is finite: so are its values, and the sum of their squares in its dtype.

    In float32 a value above 1.8e19 is out of range; a network with such weights computes nothing finite.
    """
    alike: dict[tuple[torch.dtype, torch.device], list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.numel():
            alike[tensor.dtype, tensor.device].append(tensor)
    return all(bool(torch.stack(foreach_norm(group)).isfinite().all()) for group in alike.values())


def broken(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor with a value that is not finite, or None.

    A tensor without values above zero may hold -inf: the mask of an attention does.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not (tensor.isfinite().all() or (tensor <= 0).all()):
            return name
    return None


def all_finite(values: Any) -> bool:
    """Return whether all numbers of the tensors in containers are finite."""
    tensors = (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
    return all(bool(t.isfinite().all()) for t in tensors if t.is_floating_point())


def require_finite(outputs: Any, where: str) -> None:
    """Raise an error if a tensor in containers holds a value that is not finite.

    Raises:
        DivergedError: there is one; the message begins with `where`.
    """
    if not all_finite(outputs):
        raise DivergedError(f"{where}: the network's output must be finite, got values that are not; train it again")


def equal(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors have the same shape, dtype and values; not-a-number equals itself."""
    return a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
