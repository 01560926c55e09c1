"""Memory format of images: channels last on the CPU, inside of the context `channels_last`.

On CUDA the memory format stays PyTorch's own: in torch 2.11 the gradient of an average pooling that does not count its
padding is wrong there if channels lie last. On the CPU two functions of torch 2.13 fail in this format; the context
replaces them. Code that a function mode cannot see gets images in the default format: operators of `torch.ops`, and
networks with parts in TorchScript.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from nas.kernels import convolution, native
from nas.kernels.convolution import pair
from nas.kernels.function import call
from nas.kernels.torch_internals import OpOverload, OpOverloadPacket, innermost_mode, is_mutable
from nas.kernels.torch_internals import convolution as torch_convolution

FEW = 2
"""Images of so many channels or fewer are convolved in their own memory format: channels last is slow there."""
MANY = 64
"""1x1 convolutions of so many channels are faster by oneDNN at one thread; see `pointwise_dilation`."""
ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch has no types here
"""Whether torch was built with oneDNN."""


def is_last(x: Tensor) -> bool:
    """Return whether `channels_last` applies to a tensor: an image on the CPU."""
    return x.dim() == 4 and x.is_cpu


def laid_out(x: Tensor) -> Tensor:
    """Return an image on the CPU in the format channels last, and any other tensor unchanged; so will the gradient lie.

    Otherwise a gradient in another format, such as that of a mean over pixels, keeps it through a whole cell.
    """
    return _laid(x, True, True) if is_last(x) else x


def given_back(value: Any) -> Any:
    """Return tensors, in nested containers, in the default format; gradients of images arrive channels last."""
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
    """Compute `nas.kernels.convolution.conv2d` of an image that lies channels last.

    A 1x1 kernel never has a stride: the pixels that it meets are selected first. In this memory format torch 2.13 on
    the CPU writes beyond the memory of the gradient of a strided 1x1 kernel with fewer than 16 input channels.

    Args and shapes as of `nas.kernels.convolution.conv2d`.
    """
    if not input.is_cpu or weight.dim() != 4 or padding == "same":
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    x, kernel, stride = input, weight.shape[2:], pair(stride)
    if stride != (1, 1):
        padding, dilation = (0, 0) if padding == "valid" else pair(padding), pair(dilation)
        if kernel == (1, 1):
            x = F.pad(x, (*padding[1:] * 2, *padding[:1] * 2)) if any(padding) else x
            padding, dilation = (0, 0), stride
        # A kernel whose dilation is a multiple of the stride meets every s-th row and t-th column alone.
        multiples = all(p % s == d % s == 0 for p, d, s in zip(padding, dilation, stride, strict=True))
        if multiples and (kernel == (1, 1) or groups == x.shape[-3] == len(weight)):
            x, (s, t), stride = every(x, *stride), stride, (1, 1)
            padding, dilation = (padding[0] // s, padding[1] // t), (dilation[0] // s, dilation[1] // t)
    if kernel == (1, 1):
        dilation = pointwise_dilation(x, groups)
    elif is_last(x) and x.shape[1] > FEW and weight.shape[1] > 1 and x.stride(1) != 1:
        x = laid_out(x)
    return convolution.conv2d(x, weight, bias, stride, padding, dilation, groups)


def pointwise_dilation(x: Tensor, groups: int) -> int:
    """Return the dilation with which torch convolves an image with a 1x1 kernel fastest; values do not depend on it.

    At one thread and a batch below 16 torch computes a 1x1 convolution without oneDNN, unless it is dilated. oneDNN is
    faster for images channels last if there are groups or many channels.
    """
    slow = x.dtype is torch.float32 and len(x) < 16 and torch.get_num_threads() == 1 and ONEDNN
    last = is_last(x) and x.stride(1) == 1 and not torch.is_autocast_enabled("cpu")
    return 2 if slow and last and (groups > 1 or x.shape[1] >= MANY) else 1


def every(x: Tensor, s: int, t: int) -> Tensor:
    """Select every s-th row and t-th column of `(..., channels, height, width)`; the gradient lies channels last."""
    return x.movedim(-3, -1)[..., ::s, ::t, :].movedim(-1, -3)


def channels_last(network: nn.Module | None = None) -> AbstractContextManager[Any]:
    """Return a context in which two-dimensional convolutions on the CPU compute channels last.

    Weights do not change. Nor does anything for a network on another device or with parts in TorchScript. Two functions
    that fail in this format are computed differently, with exact results: convolutions with strided 1x1 kernels (see
    `conv2d`), and norms of one image, whose gradients are wrong if a later layer reshapes the image.

    Args:
        network: the network that runs inside; None applies the context in any case.
    """
    if network is not None and (not any(p.is_cpu for p in islice(network.parameters(), 1)) or _is_scripted(network)):
        return nullcontext()
    native.load()  # here and not in the convolution, which exported files contain
    return nullcontext() if inside() else _ChannelsLast()


def _is_scripted(network: nn.Module) -> bool:
    """Return whether a network has parts in TorchScript, whose convolutions cannot be replaced."""
    return any(isinstance(module, torch.jit.ScriptModule) for module in network.modules())


@contextmanager
def by_hand() -> Iterator[None]:
    """Suspend `channels_last`, for code that calls `conv2d` itself: each call of PyTorch is cheaper."""
    mode = innermost_mode()
    if not isinstance(mode, _ChannelsLast):
        yield
        return
    mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        mode.__enter__()  # type: ignore[no-untyped-call]


def inside() -> bool:
    """Return whether `channels_last` is in effect."""
    return isinstance(innermost_mode(), _ChannelsLast)


class _ChannelsLast(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, _OPERATORS) and _may_convolve(func):
            args, kwargs = given_back(args), given_back(kwargs)
        return _REPLACED.get(func, func)(*args, **kwargs)


def _norm(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a norm that computes a single image, and its gradient, in the default format."""

    def normalize(x: Tensor, *arguments: Any, **named: Any) -> Tensor:
        if not is_last(x) or len(x) != 1:
            return function(x, *arguments, **named)
        return _laid(function(_laid(x, False, True), *arguments, **named), False, False)

    return normalize


def _usual(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function that gets images in the default format."""
    return lambda *args, **kwargs: function(*given_back(args), **given_back(kwargs))


_OPERATORS = (OpOverload, OpOverloadPacket)


@cache
def _may_convolve(operator: Any) -> bool:
    """Return whether an operator is a convolution or not PyTorch's own, and writes into none of its arguments."""
    overload = operator if isinstance(operator, OpOverload) else getattr(operator, operator.overloads()[0])
    return ("conv" in overload.name() or overload.namespace != "aten") and not is_mutable(overload)


_REPLACED: dict[Any, Callable[..., Tensor]] = {
    torch.conv2d: conv2d,
    **{f: _usual(f) for f in (torch.convolution, torch_convolution, torch.mkldnn_convolution)},
    **{f: _norm(f) for f in (F.batch_norm, torch.batch_norm, F.instance_norm, torch.instance_norm)},
}


class _Laid(Function):
    """Image in the format channels last or not, with a gradient in the format channels last or not."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, last: bool, gradient_last: bool) -> Tensor:
        if not last:
            return x.contiguous()
        # `vmap` does not know `contiguous(memory_format=...)`.
        x = x.permute(0, 2, 3, 1)
        # A single image may have any batch stride, and torch's norms take some strides for another format.
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
