"""Adaptive average pooling in operators that ONNX has, for any height and width."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def adaptive_average(x: Tensor, output_size: Sequence[int | torch.SymInt]) -> Tensor:
    """What `nn.AdaptiveAvgPool2d` and its kin compute, as one matrix product along each of the last dimensions.

    Bin b of B over S places takes places floor(b S / B) to ceil((b + 1) S / B) - 1. Torch's own form lists the places
    of the size that it is traced with.
    """
    for dim, bins in enumerate(output_size, x.dim() - len(output_size)):
        if isinstance(bins, torch.SymInt):
            continue  # asked to stay as it is, by None; the check of what was written would find anything else
        if bins == 1:
            x = x.mean(dim, keepdim=True)
            continue
        # Numbers from 1, as sums: a range would need operators that onnxruntime warns about.
        place, bin_ = (torch.ones(n, device=x.device).cumsum(0) for n in (x.shape[dim], bins))
        end = (bin_ * x.shape[dim])[:, None]
        inside = ((place * bins > end - x.shape[dim]) & (place * bins - bins < end)).to(x.dtype)
        x = (x.movedim(dim, -1) @ (inside / inside.sum(1, keepdim=True)).T).movedim(-1, dim)
    return x


_aten = torch.ops.aten
_operators = (
    _aten.adaptive_avg_pool2d.default,
    _aten._adaptive_avg_pool2d.default,
    _aten.adaptive_avg_pool3d.default,
    _aten._adaptive_avg_pool3d.default,
)
DECOMPOSED: Mapping[Any, Callable[..., Any]] = dict.fromkeys(_operators, adaptive_average)
"""For `ExportedProgram.run_decompositions`; pooling over one dimension becomes pooling over two there."""
