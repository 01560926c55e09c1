"""Moves data between devices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nas.kernels.torch_internals import tree_map_only


def placed(value: Any, device: torch.device) -> Any:
    """Return a batch, or any nested containers of tensors, on a device."""
    return tree_map_only(Tensor, lambda tensor: tensor.to(device, non_blocking=True), value)
