"""A network for inference: what training needs and prediction does not, taken out."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def folded(network: nn.Module) -> nn.Module:
    """A copy of `network`, in eval mode, whose batch norms are part of the convolutions in front of them.

    It computes the same to rounding, and its weights are laid out channels last. Only pairs within an `nn.Sequential`
    are folded. A network without one, or in training mode, is returned as it is.
    """
    if network.training or not any(_pairs(module) for module in network.modules()):
        return network
    network = copy.deepcopy(network)
    for module in network.modules():
        for index in _pairs(module):
            layers: Any = module
            layers[index] = fuse_conv_bn_eval(layers[index], layers[index + 1])
            layers[index + 1] = nn.Identity()
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def _pairs(module: nn.Module) -> list[int]:
    """Where a convolution and its batch norm follow each other."""
    if not isinstance(module, nn.Sequential):
        return []
    pairs = enumerate(itertools.pairwise(module))
    return [i for i, (a, b) in pairs if type(a) is nn.Conv2d and isinstance(b, nn.BatchNorm2d)]
