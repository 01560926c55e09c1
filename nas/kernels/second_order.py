"""Second derivatives of functions whose gradient PyTorch cannot differentiate, or only slowly."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from nas.kernels.convolution import conv2d


def twice_differentiable() -> AbstractContextManager[object]:
    """Return a context in which the gradients of more functions can be differentiated again.

    Attention, `hardsigmoid`, `cdist` and `embedding_bag` are computed from simpler functions. Gradients of
    two-dimensional grouped convolutions are fast to differentiate. Values equal those of PyTorch up to rounding.
    """
    return _Twice()


def not_differentiable(error: BaseException) -> str | None:
    """Return the operation whose second derivative PyTorch lacks, if an error is about this, else None."""
    found = re.search(r"derivative for '?(?:aten::)?_?(\w+?)(?:_for_cpu)?_backward'? is not implemented", str(error))
    return found[1] if found else None


class _Twice(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self._attention: list[Any] = []

    def __enter__(self) -> _Twice:
        self._attention.append(sdpa_kernel(SDPBackend.MATH))
        self._attention[-1].__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]  # torch has no types here
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]
        self._attention.pop().__exit__(kind, error, traceback)

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return _KERNELS.get(func, func)(*args, **(kwargs or {}))


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    return F.relu6(input + 3) / 6


def _cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = "") -> Tensor:
    distance = (x1.unsqueeze(-2) - x2.unsqueeze(-3)).abs()
    if p in (1, math.inf):
        return distance.sum(-1) if p == 1 else distance.amax(-1)
    if p < 2:  # infinite second derivatives where two coordinates are equal
        return torch.cdist(x1, x2, p)
    total = (distance**p).sum(-1)
    positive = total > 0
    return torch.where(positive, torch.where(positive, total, 1.0) ** (1 / p), 0.0)


def _embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    *ends: Any,
    **named: Any,
) -> Tensor:
    if input.dim() != 2 or max_norm is not None or scale_grad_by_freq or any((*ends, *named.values())):
        options = (offsets, max_norm, norm_type, scale_grad_by_freq, mode, sparse, per_sample_weights)
        return F.embedding_bag(input, weight, *options, *ends, **named)
    rows = F.embedding(input, weight)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    return rows.mean(1) if mode == "mean" else rows.sum(1) if mode == "sum" else rows.amax(1)


_KERNELS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.conv2d: conv2d,
    F.hardsigmoid: _hardsigmoid,
    torch.functional.cdist: _cdist,
    F.embedding_bag: _embedding_bag,
}
