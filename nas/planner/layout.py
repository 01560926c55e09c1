"""The memory layout of images: channels last, on the CPU, inside of `channels_last`; outside all lies as torch has it.

On CUDA it is torch's own: there the gradient of an average pooling that does not count its padding is wrong if channels
lie last (torch 2.11). On the CPU torch 2.13 fails in this layout too, in two functions, which are replaced here. Code
that no function mode sees gets images in the default layout: operators of `torch.ops` and, as a whole, networks with
parts in TorchScript.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._ops import OpOverload, OpOverloadPacket
from torch.autograd import Function
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, _get_current_function_mode

from nas.planner.function import call

FEW = 2
"""Images of so many channels or fewer are convolved as they lie: channels last is slow there."""


def is_last(x: Tensor) -> bool:
    """Whether the channels of a tensor are to lie last."""
    return x.dim() == 4 and x.is_cpu


def laid_out(x: Tensor) -> Tensor:
    """An image on the CPU in the layout channels last, whose gradient will have it too; any other tensor as it is.

    Without this a gradient that begins as a mean over pixels, say, stays in another layout through all of a cell.
    """
    return _laid(x, True, True) if is_last(x) else x


def given_back(value: Any) -> Any:
    """A tensor, or tuples, lists and dicts of tensors, in torch's default layout; gradients of images arrive channels
    last."""
    if isinstance(value, Tensor):
        return _laid(value, False, True) if is_last(value) and not value.is_contiguous() else value
    if isinstance(value, dict):
        return type(value)((key, given_back(item)) for key, item in value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(given_back, value))
    return type(value)(map(given_back, value)) if isinstance(value, tuple | list) else value


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """`F.conv2d` of an image channels last, in which a 1x1 kernel has no stride: the pixels that it meets are taken
    first.

    In this layout torch 2.13 on the CPU writes beyond the memory of the gradient of a 1x1 kernel with a stride and
    fewer than 16 input channels.
    """
    x, (s, t) = input, _pair(stride)
    if (s, t) != (1, 1) and weight.dim() == 4 and weight.shape[2:] == (1, 1) and x.is_cpu and padding != "same":
        p, q = (0, 0) if padding == "valid" else _pair(padding)
        x = taken(F.pad(x, (q, q, p, p)) if p or q else x, s, t)
        stride, padding = 1, 0
    elif is_last(x) and x.shape[1] > FEW and _is_dense(weight) and x.stride(1) != 1:
        x = laid_out(x)
    return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)


def _is_dense(weight: Tensor) -> bool:
    """Whether a kernel spans several pixels and channels: others convolve an image as fast however it lies."""
    return weight.dim() == 4 and weight.shape[1] > 1 and weight.shape[2:] != (1, 1)


def taken(x: Tensor, s: int, t: int) -> Tensor:
    """Every s-th row and t-th column of `(..., channels, height, width)`; the gradient lies channels last."""
    return x.movedim(-3, -1)[..., ::s, ::t, :].movedim(-1, -3)


def channels_last(network: nn.Module | None = None) -> AbstractContextManager[Any]:
    """A context in which two-dimensional convolutions on the CPU compute channels last: up to twice as fast.

    Weights stay as they are; for a network on another device, or with parts in TorchScript, nothing changes. What torch
    does wrongly in that layout is computed in another way, exactly: see `conv2d`; and the gradients of norms by the
    statistics of the input, which are wrong for a batch of one image if what follows reshapes it.
    """
    if network is not None and (not any(p.is_cpu for p in islice(network.parameters(), 1)) or _is_scripted(network)):
        return nullcontext()
    return nullcontext() if inside() else _ChannelsLast()


def _is_scripted(network: nn.Module) -> bool:
    """Whether a network has parts in TorchScript, whose convolutions nothing can replace."""
    return any(isinstance(module, torch.jit.ScriptModule) for module in network.modules())


@contextmanager
def by_hand() -> Iterator[None]:
    """Inside of `channels_last` a context without it, for code that calls `conv2d` itself: each call of torch is
    cheaper."""
    mode = _innermost()
    if not isinstance(mode, _ChannelsLast):
        yield
        return
    mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        mode.__enter__()  # type: ignore[no-untyped-call]


def inside() -> bool:
    """Whether `channels_last` is in effect."""
    return isinstance(_innermost(), _ChannelsLast)


def _innermost() -> TorchFunctionMode | None:
    mode: TorchFunctionMode | None = _get_current_function_mode()  # type: ignore[no-untyped-call]  # no types there
    return mode


class _ChannelsLast(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, _OPERATORS) and _may_convolve(func):
            args, kwargs = given_back(args), given_back(kwargs)
        return _REPLACED.get(func, func)(*args, **kwargs)


def _norm(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A norm that meets one image at a time, and its gradient, in torch's default layout."""

    def normalize(x: Tensor, *arguments: Any, **named: Any) -> Tensor:
        if not is_last(x) or len(x) != 1:
            return function(x, *arguments, **named)
        return _laid(function(_laid(x, False, True), *arguments, **named), False, False)

    return normalize


def _usual(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function that meets images in torch's default layout."""
    return lambda *args, **kwargs: function(*given_back(args), **given_back(kwargs))


_OPERATORS = (OpOverload, OpOverloadPacket)


@cache
def _may_convolve(operator: Any) -> bool:
    """Whether an operator of `torch.ops` is a convolution, or not torch's own, and writes into nothing it is given."""
    overload = operator if isinstance(operator, OpOverload) else getattr(operator, operator.overloads()[0])
    return ("conv" in overload.name() or overload.namespace != "aten") and not overload._schema.is_mutable


_REPLACED: dict[Any, Callable[..., Tensor]] = {
    torch.conv2d: conv2d,
    **{f: _usual(f) for f in (torch.convolution, torch._convolution, torch.mkldnn_convolution)},
    **{f: _norm(f) for f in (F.batch_norm, torch.batch_norm, F.instance_norm, torch.instance_norm)},
}


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return cast(tuple[int, int], tuple(value) if len(value) == 2 else (*value, *value))


class _Laid(Function):
    """An image channels last or not, whose gradient lies channels last or not."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, last: bool, gradient_last: bool) -> Tensor:
        if not last:
            return x.contiguous()
        # Not `contiguous(memory_format=...)`, which `vmap` does not know.
        x = x.permute(0, 2, 3, 1)
        # One image may have any stride from it to the next: torch's norms take some to mean another layout.
        usual = len(x) != 1 or x.stride(0) == x.numel()
        x = x.contiguous() if usual else x.clone(memory_format=torch.contiguous_format)
        return x.permute(0, 3, 1, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.layouts = inputs[1:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        last, gradient_last = ctx.layouts
        return _laid(gradient, gradient_last, last), None, None

    @staticmethod
    def jvp(ctx: Any, along: Tensor, *_: Any) -> Tensor:
        return _laid(along, *ctx.layouts)


def _laid(x: Tensor, last: bool, gradient_last: bool) -> Tensor:
    out: Tensor = call(_Laid, x, last, gradient_last)
    return out
