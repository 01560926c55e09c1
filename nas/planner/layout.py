"""The memory layout of images and of the weights of two-dimensional convolutions: channels last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nas.planner.function import Differentiable


def channels_last(network: nn.Module) -> None:
    """Lay the weights of two-dimensional convolutions out channels last: up to twice as fast on the CPU."""
    for parameter in network.parameters():  # `Module.to` would refuse weights of three-dimensional convolutions
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def laid_out(x: Tensor) -> Tensor:
    """An image in the layout channels last, whose gradient will have it too; any other tensor as it is.

    Without this a gradient that begins as a mean over pixels, say, stays in another layout through all of a cell.
    """
    if x.dim() != 4:
        return x
    return _laid(x)


class _Laid(Differentiable):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        # Not `contiguous(memory_format=...)`, which `vmap` does not know.
        return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _laid(gradient)

    @staticmethod
    def jvp(ctx: Any, along: Tensor) -> Tensor:
        return _laid(along)


_laid: Callable[[Tensor], Tensor] = _Laid.apply
