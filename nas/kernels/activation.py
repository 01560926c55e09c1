"""PReLU with a faster backward pass on the CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.kernels.function import asked, call

SLOPE = 0.25
"""Initial slope of a PReLU."""


class PReLU(nn.PReLU):
    """x if it is positive, else `weight` x, with one slope for all channels.

    Parameter and values equal those of `nn.PReLU()`. On the CPU the gradient of `nn.PReLU` chooses between two numbers
    at every pixel; this one adds a multiple of the part where x is negative.

    Shape:
        input and output: any
    """

    def __init__(self) -> None:
        super().__init__(init=SLOPE)

    def forward(self, input: Tensor) -> Tensor:
        # Under autocast the dtype of the gradient differs from that of the saved tensors.
        if input.device.type == "cpu" and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
            out: Tensor = call(_PReLU, input, self.weight)
            return out
        return super().forward(input)


class _PReLU(torch.autograd.Function):
    """The derivatives consist of differentiable operations, so they can be differentiated again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, slope: Tensor) -> Tensor:
        return F.prelu(x, slope)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, slope = ctx.saved_tensors
        wanted_x, wanted_slope = asked(ctx, 2)
        positive = _positive(gradient, x)
        rest = gradient - positive
        of_x = torch.addcmul(positive, rest, slope) if wanted_x else None
        return of_x, torch.dot(_flat(rest), _flat(x)).view(1) if wanted_slope else None

    @staticmethod
    def jvp(ctx: Any, of_x: Tensor, of_slope: Tensor) -> Tensor:
        x, slope = ctx.saved_tensors
        changed: Tensor = torch.lerp(_positive(of_x, x), of_x, slope) + of_slope * (x - x.relu())
        return changed


def _flat(x: Tensor) -> Tensor:
    """Return all numbers in a row, in their order in memory if channels lie last."""
    return (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).reshape(-1)


def _positive(change: Tensor, x: Tensor) -> Tensor:
    """Return `change` at positive x, else 0."""
    positive: Tensor = torch.ops.aten.threshold_backward(change, x, 0)
    return positive
