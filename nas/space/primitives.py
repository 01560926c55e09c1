"""The candidate operations of DARTS (Liu et al., ICLR 2019) and NAS-Bench-201 (Dong and Yang, ICLR 2020).

Each maps `(batch, channels, height, width)` to `(batch, channels, ceil(height / stride), ceil(width / stride))`, odd
sizes included. Strides must be 1 or 2 and kernels odd, else a factory raises `ConfigError`. Convolutions have no bias.
`affine` gives batch norms a learned scale and shift. An import of this module registers the operations, and the sets
`darts`, `darts-without-none`, `darts-evaluation` and `nas-bench-201`.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nas.errors import ConfigError
from nas.space.operations import OperationSet, operation


@operation("none")
def none(channels: int, *, stride: int = 1, affine: bool = True) -> nn.Module:
    """Zeros: no connection. No parameters."""
    return Zero(stride)


@operation("skip_connect")
def skip_connect(channels: int, *, stride: int = 1, affine: bool = True) -> nn.Module:
    """The identity; at stride 2 a `FactorizedReduce`. C² + 2 C parameters at stride 2."""
    if stride not in (1, 2):
        raise ConfigError(f"the stride of 'skip_connect' must be 1 or 2, got {stride!r}")
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine=affine)


@operation("avg_pool")
def avg_pool(
    channels: int, *, stride: int = 1, affine: bool = True, kernel: int = 3, normalize: bool = False
) -> nn.Module:
    """Average pooling without the padding; `normalize` appends a batch norm that is never affine. No parameters."""
    pool = nn.AvgPool2d(kernel, stride, _padding(kernel), count_include_pad=False)
    return _normalized(pool, channels, normalize)


@operation("max_pool")
def max_pool(
    channels: int, *, stride: int = 1, affine: bool = True, kernel: int = 3, normalize: bool = False
) -> nn.Module:
    """Max pooling; `normalize` appends a batch norm that is never affine. No parameters."""
    return _normalized(nn.MaxPool2d(kernel, stride, _padding(kernel)), channels, normalize)


@operation("sep_conv")
def sep_conv(channels: int, *, stride: int = 1, affine: bool = True, kernel: int = 3) -> nn.Module:
    """Twice: ReLU, depthwise kxk, 1x1, batch norm. The first has the stride. 2 (C² + k² C) + 4 C parameters."""
    return nn.Sequential(*_separable(channels, stride, affine, kernel), *_separable(channels, 1, affine, kernel))


@operation("dil_conv")
def dil_conv(channels: int, *, stride: int = 1, affine: bool = True, kernel: int = 3, dilation: int = 2) -> nn.Module:
    """ReLU, dilated depthwise kxk, 1x1, batch norm. C² + k² C + 2 C parameters."""
    return nn.Sequential(*_separable(channels, stride, affine, kernel, dilation))


@operation("relu_conv_bn")
def relu_conv_bn(
    channels: int, *, stride: int = 1, affine: bool = True, kernel: int = 3, out: int | None = None
) -> nn.Sequential:
    """ReLU, convolution kxk to `out` channels (by default `channels`), batch norm. k² C out + 2 out parameters."""
    out = channels if out is None else out
    convolution = nn.Conv2d(channels, out, kernel, stride, _padding(kernel), bias=False)
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(out, affine=affine))


@operation("conv_bn_relu")
def conv_bn_relu(channels: int, *, stride: int = 1, affine: bool = True, kernel: int = 3) -> nn.Module:
    """Convolution kxk, batch norm, ReLU. k² C² + 2 C parameters."""
    relu, convolution, norm = relu_conv_bn(channels, stride=stride, affine=affine, kernel=kernel)
    return nn.Sequential(convolution, norm, relu)


class Zero(nn.Module):
    """Returns zeros.

    Args:
        stride: of the rows and columns.

    Shape:
        `(batch, channels, height, width)` to `(batch, channels, ceil(height / stride), ceil(width / stride))`.
    """

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        # A product: parameters before x keep a gradient (of zero), and optimizers still apply decay and momentum.
        return x[..., :: self.stride, :: self.stride] * 0.0


class Parallel(nn.ModuleList):
    """Runs its modules on one input and concatenates their outputs over channels."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], 1)


class Shift(nn.Module):
    """Shifts an image by one pixel up and left, and fills with zeros."""

    channelwise = True

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]


class FactorizedReduce(nn.Module):
    """Halves height and width: ReLU, 1x1 convolutions of even and of odd pixels, batch norm.

    The input is padded by a row and a column of zeros, as in NAS-Bench-201. So odd sizes work, and even sizes give the
    results of DARTS. It has C out + 2 out parameters.

    Args:
        channels: C, of the input.
        out: of the output.
        affine: learn the scale and shift of the batch norm.

    Shape:
        `(batch, channels, height, width)` to `(batch, out, ceil(height / 2), ceil(width / 2))`.
    """

    def __init__(self, channels: int, out: int, *, affine: bool = True) -> None:
        super().__init__()
        self.even = nn.Conv2d(channels, out // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(channels, out - out // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(out, affine=affine)

    def structure(self) -> list[nn.Module]:
        """Return the layers in order, for planned evaluation."""
        return [nn.ReLU(), Parallel([self.even, nn.Sequential(Shift(), self.odd)]), self.norm]

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        shifted = nn.functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        return self.norm(torch.cat([self.even(x), self.odd(shifted)], 1))  # type: ignore[no-any-return]


class DropPath(nn.Dropout3d):
    """Zeroes each item of a batch with probability `p` in training, and divides the remaining ones by 1 - p.

    Place it after an operation. Over a search or a retraining, `p` grows linearly from 0 to `rate`; in other uses it
    stays at `rate`.

    Args:
        rate: the final probability, in [0, 1].

    Shape:
        `(batch, channels, height, width)`, unchanged.

    References:
        Larsson et al., "FractalNet", ICLR 2017, sec. 3 (local drop path). Zoph et al., "NASNet", CVPR 2018 (the
        linear growth).
    """

    # For four dimensions, `Dropout3d` drops entries of the first: the items of the batch.
    def __init__(self, rate: float) -> None:
        super().__init__(rate)
        self.rate = rate

    def on_progress(self, step: int, steps: int) -> None:
        """Set the probability at `step` of `steps`, counted from 0."""
        self.p = self.rate * step / steps


def _padding(kernel: int) -> int:
    if not isinstance(kernel, int) or kernel % 2 == 0 or kernel < 1:
        raise ConfigError(f"the kernel of an operation must be an odd number, got {kernel!r}")
    return kernel // 2


def _normalized(pool: nn.Module, channels: int, normalize: bool) -> nn.Module:
    return nn.Sequential(pool, nn.BatchNorm2d(channels, affine=False)) if normalize else pool


def _separable(channels: int, stride: int, affine: bool, kernel: int, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * _padding(kernel)
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    ]


DARTS = OperationSet(
    {
        "none": none,
        "max_pool_3x3": partial(max_pool, kernel=3, normalize=True),
        "avg_pool_3x3": partial(avg_pool, kernel=3, normalize=True),
        "skip_connect": skip_connect,
        "sep_conv_3x3": partial(sep_conv, kernel=3),
        "sep_conv_5x5": partial(sep_conv, kernel=5),
        "dil_conv_3x3": partial(dil_conv, kernel=3),
        "dil_conv_5x5": partial(dil_conv, kernel=5),
    }
).register("darts")
"""The eight candidates of a DARTS search (sec. 3.1.1): batch norms follow poolings."""

DARTS_WITHOUT_NONE = DARTS.without("none").register("darts-without-none")
"""The candidates of searches that let no edge be absent, such as FairDARTS and DrNAS."""

DARTS_EVALUATION = (DARTS | {"max_pool_3x3": max_pool, "avg_pool_3x3": avg_pool}).register("darts-evaluation")
"""The candidates of the published DARTS networks: no batch norms follow poolings."""

NAS_BENCH_201 = OperationSet(
    {
        "none": none,
        "skip_connect": skip_connect,
        "nor_conv_1x1": partial(relu_conv_bn, kernel=1),
        "nor_conv_3x3": partial(relu_conv_bn, kernel=3),
        "avg_pool_3x3": partial(avg_pool, kernel=3),
    }
).register("nas-bench-201")
"""The five candidates of NAS-Bench-201, sec. 2.1."""
