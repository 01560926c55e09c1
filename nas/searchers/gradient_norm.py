"""The score `grad_norm`: how large the gradient of the loss is at the initial weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def grad_norm(network: nn.Module, loss: Callable[[nn.Module], Tensor]) -> float:
    """Return the sum over layers of the Euclidean norm of the gradient of the layer's weight, on one batch.

    Layers are those with a weight of two or more dimensions: convolutions and linear layers, not norms. A weight that
    does not affect the loss counts as 0.

    References:
        Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, section 3.2.1.
    """
    weights = weights_of(network)
    gradients = torch.autograd.grad(loss(network), weights, allow_unused=True, materialize_grads=True)
    return float(sum(gradient.norm().item() for gradient in gradients))


def weights_of(network: nn.Module) -> list[nn.Parameter]:
    """Return the weights of the layers, without those of norms: the parameters of two or more dimensions."""
    return [parameter for parameter in network.parameters() if parameter.dim() > 1 and parameter.requires_grad]
