"""The score `synflow`: the synaptic flow through a network, without data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.searchers.gradient_norm import weights_of
from nas.searchers.jacobian_covariance import outputs_of

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
NORMS = (*BATCH_NORMS, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm, nn.LayerNorm)


def synflow(network: nn.Module, example: tuple[Tensor, ...]) -> float:
    """Return the sum over weights w of |w dR/dw|, where R is the sum of the outputs for an input of ones.

    All parameters are replaced by their absolute values and norms by the identity, in float64. Each layer of a linear
    chain then contributes R: the sum over all paths from the input to the output of the products of |w|. If the last
    layer starts at zero, as in TMICS, the score is 0.

    References:
        Tanaka et al., "Pruning Neural Networks without Any Data by Iteratively Conserving Synaptic Flow", NeurIPS 2020,
        as a score by Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, section 3.2.2. Norms are
        left out as in the latter's code (SamsungLabs/zero-cost-nas).
    """
    network.double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    hooks = [
        norm.register_forward_hook(lambda _, inputs, __: inputs[0])
        for norm in network.modules()
        if isinstance(norm, NORMS)
    ]
    try:
        ones = [torch.ones_like(each, dtype=torch.double) if each.is_floating_point() else each for each in example]
        flow = torch.stack([each.sum() for each in outputs_of(network(*ones))]).sum()
    finally:
        for hook in hooks:
            hook.remove()
    weights = weights_of(network)
    gradients = torch.autograd.grad(flow, weights, allow_unused=True, materialize_grads=True)
    return float(sum((w.detach() * g).abs().sum().item() for w, g in zip(weights, gradients, strict=True)))
