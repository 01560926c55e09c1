"""Folding: batch norms and 1x1 convolutions become part of the convolutions before them, for faster inference."""

from __future__ import annotations

import copy
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def folded(network: nn.Module) -> nn.Module:
    """Fold batch norms and 1x1 convolutions into the convolutions before them.

    Only pairs within an `nn.Sequential` are folded, and only batch norms that use their running
    statistics. Results change by rounding.

    Args:
        network: in eval mode.

    Returns:
        A folded copy; `network` itself if it has no such pair or is in training mode.
    """
    if network.training or not any(_pairs(module) for module in network.modules()):
        return network
    network = copy.deepcopy(network)
    for module in network.modules():
        for index in _pairs(module):
            layers: Any = module
            first, second = layers[index], layers[index + 1]
            layers[index] = _joined(first, second) if _is_pointwise(second) else fuse_conv_bn_eval(first, second)
            layers[index + 1] = nn.Identity()
    return network


def _pairs(module: nn.Module) -> list[int]:
    """List the positions of convolutions whose next layer can be folded, the last first, so that chains fold."""
    if not isinstance(module, nn.Sequential):
        return []
    layers = list(module)
    return [i for i in reversed(range(len(layers) - 1)) if _fits(layers[i], layers[i + 1])]


def _fits(first: nn.Module, second: nn.Module) -> bool:
    if type(first) is not nn.Conv2d:
        return False
    if isinstance(second, nn.BatchNorm2d):
        return not (first.training or second.training or second.running_mean is None)
    return first.groups == 1 and _is_pointwise(second) and first.out_channels >= second.out_channels


def _is_pointwise(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    geometry = ((1, 1), (1, 1), (0, 0), 1)
    return type(layer) is nn.Conv2d and (layer.kernel_size, layer.stride, layer.padding, layer.groups) == geometry


def _joined(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """Join a convolution and the 1x1 convolution after it."""
    joined = copy.deepcopy(first)
    mixing = second.weight.flatten(1)
    joined.weight = nn.Parameter(torch.einsum("oh,hikl->oikl", mixing, first.weight))
    biases = [b for b in (mixing @ first.bias if first.bias is not None else None, second.bias) if b is not None]
    joined.bias = nn.Parameter(torch.stack(biases).sum(0)) if biases else None
    return joined
