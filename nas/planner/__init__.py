"""How the cells of a supernet are evaluated: plainly, or shared and batched with the same results."""

from __future__ import annotations

import torch
from torch import nn

from nas.cell import Cell
from nas.planner.planned import Planned


def plan(network: nn.Module) -> None:
    """Have the network's cells evaluated by plan, and its convolutions' weights lie channels last."""
    channels_last(network)
    for module in network.modules():
        if isinstance(module, Cell):
            module.evaluation = Planned(module)


def channels_last(network: nn.Module) -> None:
    """Lay the weights of two-dimensional convolutions out channels last: up to twice as fast on the CPU."""
    for parameter in network.parameters():  # `Module.to` would refuse weights of three-dimensional convolutions
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
