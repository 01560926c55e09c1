"""Compare the outputs of a network and of its exported form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from nas.kernels.torch_internals import tree_leaves


def output_difference(a: Callable[..., Any], b: Callable[..., Any], inputs: Sequence[Tensor]) -> float:
    """Return the greatest absolute difference between the outputs of two networks."""
    with torch.no_grad():
        return greatest_difference(a(*inputs), b(*inputs))


def greatest_difference(a: Any, b: Any) -> float:
    """Return the greatest absolute difference of the tensors in two results.

    It is infinite if shapes differ, and not a number if a value is not finite.
    """
    mine, theirs = _tensors(a), _tensors(b)
    if [tensor.shape for tensor in mine] != [tensor.shape for tensor in theirs]:
        return float("inf")
    return worst((x.double() - y.double()).abs().max().item() for x, y in zip(mine, theirs, strict=True) if x.numel())


def worst(gaps: Iterable[float]) -> float:
    """Return the greatest value, 0 if there is none, and not a number if any value is not a number."""
    return torch.tensor([0.0, *gaps], dtype=torch.double).max().item()


def _tensors(result: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
