"""The memory layout of images and of the weights of two-dimensional convolutions: channels last, on the CPU.

On CUDA it is torch's own: there the gradient of an average pooling that does not count its padding is wrong where
channels lie last (torch 2.11).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from nas.planner.function import call


def channels_last(network: nn.Module) -> None:
    """Lay the weights of two-dimensional convolutions out channels last on the CPU: up to twice as fast.

    On other devices they get torch's own layout back.
    """
    for parameter in network.parameters():  # `Module.to` would refuse weights of three-dimensional convolutions
        if parameter.dim() == 4:
            layout = torch.channels_last if is_last(parameter) else torch.contiguous_format
            parameter.data = parameter.data.contiguous(memory_format=layout)


def is_last(x: Tensor) -> bool:
    """Whether the channels of a tensor are to lie last."""
    return x.dim() == 4 and x.is_cpu


def laid_out(x: Tensor) -> Tensor:
    """An image on the CPU in the layout channels last, whose gradient will have it too; any other tensor as it is.

    Without this a gradient that begins as a mean over pixels, say, stays in another layout through all of a cell.
    """
    return _laid(x) if is_last(x) else x


class _Laid(Function):
    generate_vmap_rule = True

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


def _laid(x: Tensor) -> Tensor:
    out: Tensor = call(_Laid, x)
    return out
