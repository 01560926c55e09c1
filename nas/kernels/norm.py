"""Batch normalization in training mode whose second derivatives cost little more than the first.

PyTorch differentiates the gradient of a batch norm by some twenty passes over the image. A few sums over the pixels of
each channel and two linear combinations of images are enough.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from nas.distributed.whole_batch import is_synchronized, synchronized_norm
from nas.kernels.function import call

PIXELS = (0, 2, 3)


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """Compute `F.batch_norm` in training mode, which updates the running statistics; over all ranks if it shall be.

    Raises:
        ValueError: the batch has one pixel per channel.

    Shape:
        x and output: `(batch, channels, height, width)`
    """
    if is_synchronized():
        return synchronized_norm(x, running_mean, running_var, weight, bias, momentum, eps)
    if not x.is_cpu or torch.is_autocast_enabled("cpu") or x.numel() == x.shape[1]:
        return F.batch_norm(x, running_mean, running_var, weight, bias, True, momentum, eps)
    found: tuple[Tensor, Tensor, Tensor] = call(_Norm, x, weight, bias, running_mean, running_var, momentum, eps)
    return found[0]


class _Norm(Function):
    """Return weight u + bias with u = (x - mean) inverse; the mean; and inverse = 1 / sqrt(variance + eps)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return torch.native_batch_norm(x, weight, bias, running_mean, running_var, True, momentum, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, weight, *_, ctx.eps = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, *output[1:])
        ctx.save_for_forward(x, weight, *output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None, *_: None) -> Any:
        wanted = ctx.needs_input_grad[:3]
        found = (None,) * 3 if gradient is None else _gradient(gradient, *ctx.saved_tensors, ctx.eps)
        return *(each if want else None for each, want in zip(found, wanted, strict=True)), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, along: Tensor | None, along_weight: Tensor | None, along_bias: Tensor | None, *_: None) -> Any:
        x, weight, mean, inverse = ctx.saved_tensors
        change = torch.zeros_like(x)
        if along is not None:
            change = change + _gradient(along, x, weight, mean, inverse, ctx.eps)[0]  # dy / dx is symmetric
        if along_weight is not None:
            change = change + _unit(x, *_statistics(x, ctx.eps)) * _image(along_weight)
        if along_bias is not None:
            change = change + _image(along_bias)
        return change, None, None


class _Gradient(Function):
    """Gradients of g . y: weight inverse (g - E g - u E gu), sum gu and sum g; E is the mean over pixels."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        gradient: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, inverse: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, None, None, mean, inverse, True, eps, (True, True, True)
        )
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.eps = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *output[1:])
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, to_weight: Tensor | None, to_bias: Tensor | None) -> Any:
        g, x, weight, *saved, sum_gu, sum_g = ctx.saved_tensors
        mean, inverse = saved
        if torch.is_grad_enabled():  # autograd does not know how the saved tensors depend on x
            mean, inverse = _statistics(x, ctx.eps)
            sum_gu, sum_g = (g * _unit(x, mean, inverse)).sum(PIXELS), g.sum(PIXELS)
        v = torch.zeros_like(x) if v is None else v
        of_g, sum_vu, sum_v = _gradient(v, x, weight, *saved, ctx.eps)
        pixels = x.numel() // x.shape[1]
        cross = (g * v).sum(PIXELS) - (sum_g * sum_v + sum_gu * sum_vu) / pixels
        scale = (inverse if weight is None else weight * inverse) * inverse / pixels
        by_g, by_v = -scale * sum_vu, -scale * sum_gu
        if to_weight is not None:
            by_g = by_g + inverse * to_weight
            of_g = torch.addcmul(of_g, _unit(x, mean, inverse), _image(to_weight))
        if to_bias is not None:
            of_g = of_g + _image(to_bias)
        by_x = -inverse * (scale * cross + (by_g * sum_gu + by_v * sum_vu) / pixels)
        shift = -mean * by_x - (by_g * sum_g + by_v * sum_v) / pixels
        of_x = torch.addcmul(_image(shift), v, _image(by_v))
        of_x = of_x.addcmul_(g, _image(by_g)).addcmul_(x, _image(by_x))
        return of_g, of_x, None if weight is None else inverse * cross, None, None, None

    @staticmethod
    def jvp(ctx: Any, along_g: Tensor | None, along_x: Tensor | None, along_weight: Tensor | None, *_: None) -> Any:
        g, x, weight, *saved = ctx.saved_tensors
        mean, inverse = _statistics(x, ctx.eps)
        pixels = x.numel() // x.shape[1]
        along_g = torch.zeros_like(g) if along_g is None else along_g
        of_x, of_weight, of_bias = _gradient(along_g, x, weight, *saved, ctx.eps)
        plain, sum_gu = _gradient(g, x, None, *saved, ctx.eps)[:2]
        if along_weight is not None:
            of_x = of_x + plain * _image(along_weight)
        if along_x is not None:
            along_u, sum_xu = _gradient(along_x, x, None, *saved, ctx.eps)[:2]  # du / dx is that of y for weight 1
            along_dot = (g * along_u).sum(PIXELS)
            change = plain * _image(sum_xu) + along_u * _image(sum_gu) + _unit(x, mean, inverse) * _image(along_dot)
            of_x = of_x - change * _image((inverse if weight is None else weight * inverse) / pixels)
            of_weight = of_weight + along_dot
        return of_x, of_weight, of_bias


def _statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x, PIXELS, correction=0)
    return mean, (variance + eps).rsqrt()


def _unit(x: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    return (x - _image(mean)) * _image(inverse)


def _image(channels: Tensor) -> Tensor:
    """Return one number per channel in a shape that applies to all pixels."""
    return channels.view(-1, 1, 1)


def _gradient(gradient: Tensor, x: Tensor, weight: Tensor | None, *saved: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients; `saved` holds the mean, the inverse, and eps."""
    found: tuple[Tensor, Tensor, Tensor] = call(_Gradient, gradient, x, weight, *saved)
    return found
