"""Second derivatives of grouped convolutions, computed for all groups at once.

Torch differentiates the gradient of a grouped convolution group by group, which makes a depthwise one as slow as its
channels are many. Each term of that derivative is a convolution, or the gradient of one, and these know groups.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Settings = tuple[list[int], list[int], list[int], int]
"""Stride, padding, dilation, groups."""


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.conv2d`, whose gradient is quick to differentiate if there are groups."""
    if groups == 1 or isinstance(padding, str) or input.dim() != 4:
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    if torch.is_autocast_enabled(input.device.type):  # it would cast inside of ours, and not what they save
        dtype = torch.get_autocast_dtype(input.device.type)
        input, weight = input.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    settings = (_pair(stride), _pair(padding), _pair(dilation), groups)
    output: Tensor = _Convolution.apply(input, weight, settings)  # type: ignore[no-untyped-call]
    return output if bias is None else output + bias[:, None, None]


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, settings: Settings) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.settings = settings
        return _forward(x, weight, settings)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensors
        mask = ctx.needs_input_grad[:2]
        return (*_Gradient.apply(cotangents[0], x, weight, ctx.settings, mask), None)  # type: ignore[no-untyped-call]


class _Gradient(torch.autograd.Function):
    """(cotangent of the output, x, weight) to those of x and of weight."""

    @staticmethod
    def forward(
        ctx: Any, cotangent: Tensor, x: Tensor, weight: Tensor, settings: Settings, mask: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        ctx.save_for_backward(cotangent, x, weight)
        ctx.settings = settings
        ctx.set_materialize_grads(False)
        return _backward(cotangent, x, weight, settings, mask)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        of_x, of_weight = cotangents
        cotangent, x, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad
        back: list[Tensor | None] = [None, None, None]
        if of_x is not None:
            if needed[0]:
                back[0] = _forward(of_x, weight, ctx.settings)
            if needed[2]:
                back[2] = _backward(cotangent, of_x, weight, ctx.settings, (False, True))[1]
        if of_weight is not None:
            if needed[0]:
                term = _forward(x, of_weight, ctx.settings)
                back[0] = term if back[0] is None else back[0] + term
            if needed[1]:
                back[1] = _backward(cotangent, x, of_weight, ctx.settings, (True, False))[0]
        return (*back, None, None)


def _forward(x: Tensor, weight: Tensor, settings: Settings) -> Tensor:
    stride, padding, dilation, groups = settings
    return torch.conv2d(x, weight, None, stride, padding, dilation, groups)


def _backward(
    cotangent: Tensor, x: Tensor, weight: Tensor, settings: Settings, mask: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    stride, padding, dilation, groups = settings
    of_x, of_weight, _ = torch.ops.aten.convolution_backward(
        cotangent, x, weight, None, stride, padding, dilation, False, [0, 0], groups, [*mask, False]
    )
    return of_x, of_weight
