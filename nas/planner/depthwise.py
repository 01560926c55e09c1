"""Depthwise convolution of stride 1 whose gradients are depthwise convolutions too, of any order.

torch computes the gradient of the input by a slow general routine where the kernel is dilated. At stride 1 it is the
convolution with the flipped kernel, so the fast forward routine serves both: the same numbers, up to rounding. The
result, the two gradients and all theirs are one bilinear form, hence two functions that refer to each other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from nas.planner import native
from nas.planner.function import asked, call

native.load()

Pair = tuple[int, int]


def depthwise(x: Tensor, weight: Tensor, padding: Pair, dilation: Pair) -> Tensor:
    """Convolve each channel with its own kernel: `(batch, C, h, w)` and `(C, 1, kh, kw)`; stride 1.

    `padding` is at most `dilation * (kernel - 1)` in each direction.
    """
    out: Tensor = call(_Convolution, x, weight, padding, dilation)
    return out


class _Convolution(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, padding: Pair, dilation: Pair) -> Tensor:
        return torch.conv2d(x, weight, None, 1, padding, dilation, len(weight))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, weight, *ctx.geometry = inputs
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        wanted = asked(ctx, 2)
        to_x = _transposed(gradient, weight, *ctx.geometry) if wanted[0] else None
        to_weight = _correlation(x, gradient, weight.shape, *ctx.geometry) if wanted[1] else None
        return to_x, to_weight, None, None

    @staticmethod
    def jvp(ctx: Any, along_x: Tensor, along_weight: Tensor, *_: None) -> Tensor:
        x, weight = ctx.saved_tensors
        return depthwise(along_x, weight, *ctx.geometry) + depthwise(x, along_weight, *ctx.geometry)


class _Correlation(Function):
    """The gradient of the kernel, given the input and the gradient of the output."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, gradient: Tensor, shape: torch.Size, padding: Pair, dilation: Pair) -> Tensor:
        if x.is_cpu and (max(shape[2:]) > 3 or max(dilation) > 1):  # where torch is slow
            if native.suits(x):
                return native.kernel_gradient(x, gradient, shape[2:], padding, dilation)
            return _by_taps(x, gradient, shape, padding, dilation)
        weight = x.new_empty(shape)
        found: Tensor = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, (1, 1), padding, dilation, False, (0, 0), shape[0], (False, True, False)
        )[1]
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, gradient, ctx.shape, *ctx.geometry = inputs
        ctx.save_for_backward(x, gradient)
        ctx.save_for_forward(x, gradient)

    @staticmethod
    def backward(ctx: Any, along: Tensor) -> Any:
        x, gradient = ctx.saved_tensors
        wanted = asked(ctx, 2)
        to_x = _transposed(gradient, along, *ctx.geometry) if wanted[0] else None
        to_gradient = depthwise(x, along, *ctx.geometry) if wanted[1] else None
        return to_x, to_gradient, None, None, None

    @staticmethod
    def jvp(ctx: Any, along_x: Tensor, along_gradient: Tensor, *_: None) -> Tensor:
        x, gradient = ctx.saved_tensors
        geometry = (ctx.shape, *ctx.geometry)
        return _correlation(along_x, gradient, *geometry) + _correlation(x, along_gradient, *geometry)


def _by_taps(x: Tensor, gradient: Tensor, shape: torch.Size, padding: Pair, dilation: Pair) -> Tensor:
    """The gradient of the kernel, by one product and sum of images for each of its numbers."""
    rows, columns = (
        [_overlap(tap * dilation[axis] - padding[axis], x.shape[2 + axis], gradient.shape[2 + axis]) for tap in taps]
        for axis, taps in enumerate(map(range, shape[2:]))
    )
    sums = []
    for top, above, height in rows:  # not `[...]`, which `vmap` may not know
        image, gradients = x.narrow(2, top, height), gradient.narrow(2, above, height)
        for left, beside, width in columns:
            sums.append((image.narrow(3, left, width) * gradients.narrow(3, beside, width)).sum((0, 2, 3)))
    return torch.stack(sums, 1).view(shape)


def _overlap(shift: int, image: int, gradient: int) -> tuple[int, int, int]:
    """Where on the image, and on the gradient displaced by `shift`, both lie, from where on and how far."""
    start = max(0, -shift)
    length = max(0, min(gradient, image - shift) - start)
    return (start + shift, start, length) if length else (0, 0, 0)


def _correlation(x: Tensor, gradient: Tensor, shape: torch.Size, padding: Pair, dilation: Pair) -> Tensor:
    found: Tensor = call(_Correlation, x, gradient, shape, padding, dilation)
    return found


def _transposed(gradient: Tensor, weight: Tensor, padding: Pair, dilation: Pair) -> Tensor:
    """The gradient of the input: the convolution with the flipped kernel."""
    full = tuple(d * (k - 1) - p for d, k, p in zip(dilation, weight.shape[2:], padding, strict=True))
    return depthwise(gradient, weight.flip(2, 3), full, dilation)  # type: ignore[arg-type]  # two, as `dilation` has
