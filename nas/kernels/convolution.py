"""Two-dimensional grouped convolution with derivatives of any order, computed for all groups at once.

The inner product of an output gradient with the convolution of an image and a kernel is linear in each of the three.
Its derivative with respect to one of them, given the two others, is the gradient of the image, the gradient of the
kernel, or the convolution itself. Every further derivative is one of these three again, so one autograd function
serves all orders.

PyTorch differentiates the gradient of a grouped convolution group by group, and computes the gradients of dilated
depthwise convolutions by a slow general routine. Both are replaced here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from nas.kernels import native
from nas.kernels.function import asked, call

Pair = tuple[int, int]

IMAGE, KERNEL, OUTPUT = range(3)
"""The three factors of the inner product, in the order in which functions take them."""


class Geometry:
    """Settings of a convolution, and of its factors what two of them do not tell about the third.

    Not a tuple, because `torch.func.hessian` looks for tensors inside of tuples. Not a dataclass, because files that
    `nas export` writes must work without an entry in `sys.modules`.

    Args:
        image: height and width.
        kernel: height and width.
        stride: of rows and columns.
        padding: of rows and columns.
        dilation: of rows and columns.
        groups: number of groups.
        depthwise: whether the fast depthwise formulas apply: on the CPU, one channel per group in and out, stride 1.
        channels_last: memory format of the image, and hence of its gradient.
    """

    def __init__(
        self,
        image: Pair,
        kernel: Pair,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
        depthwise: bool,
        channels_last: bool,
    ) -> None:
        self.image, self.kernel = image, kernel
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.depthwise, self.channels_last = depthwise, channels_last


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Compute `torch.conv2d`. If there are groups, all derivatives are fast, and any of them can be differentiated.

    Args:
        input: image.
        weight: kernel.
        bias: one value per output channel.
        stride: a number, or one per axis; likewise `padding` and `dilation`.
        padding: number of zeros on each side, or "valid" or "same".
        dilation: distance between the pixels that a kernel meets.
        groups: number of groups of channels.

    Shape:
        input: `(batch, channels, height, width)`
        weight: `(out channels, channels / groups, kernel height, kernel width)`
        output: `(batch, out channels, out height, out width)`
    """
    if groups == 1 or isinstance(padding, str) or input.dim() != 4:
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    if torch.is_autocast_enabled(input.device.type):  # autocast would not cast the tensors that the function saves
        dtype = torch.get_autocast_dtype(input.device.type)
        input, weight = input.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    settings = pair(stride), pair(padding), pair(dilation)
    geometry = Geometry(
        pair(input.shape[2:]),
        pair(weight.shape[2:]),
        *settings,
        groups,
        input.is_cpu and groups == input.shape[1] == len(weight) and settings[0] == (1, 1) and _fits(weight, *settings),
        input.stride(1) == 1,
    )
    output = _derivative((input, weight, None), OUTPUT, geometry)
    return output if bias is None else output + bias[:, None, None]


def pair(value: Any) -> Pair:
    """Return a setting of a convolution as one number per axis."""
    if isinstance(value, int):
        return value, value
    first, second = value if len(value) == 2 else (*value, *value)
    return first, second


def _fits(weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> bool:
    """Whether the padding is at most what the flipped kernel can have as its own."""
    return all(p <= d * (k - 1) for p, d, k in zip(padding, dilation, weight.shape[2:], strict=True))


class _Derivative(Function):
    """Derivative of <gradient, conv(image, kernel)> with respect to factor `by`, given the two others in order."""

    generate_vmap_rule = True

    @staticmethod
    def forward(first: Tensor, second: Tensor, by: int, geometry: Geometry) -> Tensor:
        formula = (_image_gradient, _kernel_gradient, _convolution)[by]
        return formula(first, second, geometry)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        *given, ctx.by, ctx.geometry = inputs
        ctx.save_for_backward(*given)
        ctx.save_for_forward(*given)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        factors = list(ctx.saved_tensors)
        factors.insert(ctx.by, gradient)
        others = [by for by in (IMAGE, KERNEL, OUTPUT) if by != ctx.by]
        needed = zip(others, asked(ctx, 2), strict=True)
        return *(_derivative(factors, by, ctx.geometry) if need else None for by, need in needed), None, None

    @staticmethod
    def jvp(ctx: Any, along_first: Tensor, along_second: Tensor, *_: None) -> Tensor:
        first, second = ctx.saved_tensors
        change: Tensor = call(_Derivative, along_first, second, ctx.by, ctx.geometry)
        change = change + call(_Derivative, first, along_second, ctx.by, ctx.geometry)
        return change


def _derivative(factors: Any, by: int, geometry: Geometry) -> Tensor:
    """Derivative with respect to factor `by`; `factors` are image, kernel and output gradient."""
    found: Tensor = call(_Derivative, *factors[:by], *factors[by + 1 :], by, geometry)
    return found


def _convolution(image: Tensor, kernel: Tensor, geometry: Geometry) -> Tensor:
    return torch.conv2d(image, kernel, None, geometry.stride, geometry.padding, geometry.dilation, geometry.groups)


def _image_gradient(kernel: Tensor, gradient: Tensor, geometry: Geometry) -> Tensor:
    if geometry.depthwise:  # a convolution with the flipped kernel, by torch's fast forward routine
        full = [d * (k - 1) - p for d, k, p in zip(geometry.dilation, geometry.kernel, geometry.padding, strict=True)]
        return torch.conv2d(gradient, kernel.flip(2, 3), None, 1, full, geometry.dilation, geometry.groups)
    batch, channels, (height, width) = len(gradient), kernel.shape[1] * geometry.groups, geometry.image
    if geometry.channels_last:
        image = gradient.new_empty(batch, height, width, channels).permute(0, 3, 1, 2)
    else:
        image = gradient.new_empty(batch, channels, height, width)
    return _torch_gradients(gradient, image, kernel, geometry, by=IMAGE)


def _kernel_gradient(image: Tensor, gradient: Tensor, geometry: Geometry) -> Tensor:
    if geometry.depthwise and (max(geometry.kernel) > 3 or max(geometry.dilation) > 1):  # torch is slow here
        if native.suits(image):
            return native.kernel_gradient(image, gradient, geometry.kernel, geometry.padding, geometry.dilation)
        return _kernel_gradient_by_taps(image, gradient, geometry)
    kernel = image.new_empty(gradient.shape[1], image.shape[1] // geometry.groups, *geometry.kernel)
    return _torch_gradients(gradient, image, kernel, geometry, by=KERNEL)


def _torch_gradients(gradient: Tensor, image: Tensor, kernel: Tensor, geometry: Geometry, by: int) -> Tensor:
    """Compute one gradient by torch's routine, which reads only the shape of the factor that it differentiates by."""
    settings = (geometry.stride, geometry.padding, geometry.dilation, False, (0, 0), geometry.groups)
    mask = [by == IMAGE, by == KERNEL, False]
    found: Tensor = torch.ops.aten.convolution_backward(gradient, image, kernel, None, *settings, mask)[by]
    return found


def _kernel_gradient_by_taps(image: Tensor, gradient: Tensor, geometry: Geometry) -> Tensor:
    """Compute each element of a depthwise kernel's gradient as the sum of a product of two images."""
    rows, columns = (
        [
            _overlap(
                tap * geometry.dilation[axis] - geometry.padding[axis], image.shape[2 + axis], gradient.shape[2 + axis]
            )
            for tap in range(geometry.kernel[axis])
        ]
        for axis in range(2)
    )
    sums = []
    for top, above, height in rows:  # `narrow`, since `vmap` does not know every `[...]`
        pixels, gradients = image.narrow(2, top, height), gradient.narrow(2, above, height)
        for left, beside, width in columns:
            sums.append((pixels.narrow(3, left, width) * gradients.narrow(3, beside, width)).sum((0, 2, 3)))
    return torch.stack(sums, 1).view(-1, 1, *geometry.kernel)


def _overlap(shift: int, image: int, gradient: int) -> tuple[int, int, int]:
    """Start in the image, start in the gradient moved by `shift`, and length of what both cover along one axis."""
    start = max(0, -shift)
    length = max(0, min(gradient, image - shift) - start)
    return (start + shift, start, length) if length else (0, 0, 0)
