"""The NAS-Bench-Macro space (Su et al., CVPR 2021): eight layers, each one of three blocks."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import Tensor, nn

from nas import Chooser, search_space
from nas.registry import Count
from nas.space.operations import Factory

STAGES = (2, 3, 3)
"""The number of layers of each stage. The first layer of a stage halves height and width and doubles the channels."""


@search_space("nas-bench-macro")
def nas_bench_macro_space(
    choose: Chooser, /, *, channels: Count = 32, features: Count = 1280, classes: Count = 10, in_channels: Count = 3
) -> nn.Module:
    """Image classification by a chain of eight blocks, each with its own choice (NAS-Bench-Macro).

    Args:
        choose: states the decisions.
        channels: of the stem; each of the three stages doubles them.
        features: channels before the classifier.
        classes: number of classes.
        in_channels: of the images.

    Shape:
        Images `(batch, in_channels, height, width)` to scores `(batch, classes)`.

    References:
        Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR 2021, sec. 5.1. The blocks are
        those of the authors' code, github.com/xiusu/NAS-Bench-Macro.
    """
    layers: dict[str, nn.Module] = {"stem": _conv_bn_relu(in_channels, channels, kernel=3)}
    for stage, count in enumerate(STAGES):
        for layer in range(count):
            number = sum(STAGES[:stage]) + layer + 1
            out, stride = (channels, 1) if layer else (2 * channels, 2)
            candidates: dict[str, Factory] = {
                "identity": partial(shortcut, channels, out, stride),
                "mb3_k3": partial(InvertedResidual, channels, out, stride, expansion=3, kernel=3),
                "mb6_k5": partial(InvertedResidual, channels, out, stride, expansion=6, kernel=5),
            }
            layers[f"layer_{number}"] = choose(f"layer_{number}", candidates)
            channels = out
    layers["features"] = _conv_bn_relu(channels, features)
    layers["pool"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    layers["classifier"] = nn.Linear(features, classes)
    return nn.Sequential(OrderedDict(layers))


def shortcut(channels: int, out: int, stride: int) -> nn.Module:
    """Return the identity, or a 1x1 convolution with batch norm if the shape changes."""
    if stride == 1 and channels == out:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))


class InvertedResidual(nn.Module):
    """The block of MobileNetV2, with a residual connection if the shape stays.

    Args:
        channels: of the input.
        out: channels of the output.
        stride: of the depthwise convolution.
        expansion: its channels, as a multiple of those of the input.
        kernel: its kernel size.

    Shape:
        `(batch, channels, height, width)` to `(batch, out, ceil(height / stride), ceil(width / stride))`.

    References:
        Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, sec. 3.3.
    """

    def __init__(self, channels: int, out: int, stride: int, *, expansion: int, kernel: int) -> None:
        super().__init__()
        hidden = expansion * channels
        self.body = nn.Sequential(
            *_conv_bn_relu(channels, hidden),
            *_conv_bn_relu(hidden, hidden, kernel=kernel, stride=stride, groups=hidden),
            nn.Conv2d(hidden, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.body(x)
        return output + x if self.residual else output


def _conv_bn_relu(channels: int, out: int, *, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU())
