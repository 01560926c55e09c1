"""The score `jacob_cov`: how differently an untrained network responds to different inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.kernels.torch_internals import tree_leaves
from nas.searchers.score import LOWEST

K = 1e-5
"""The constant k of the paper, which keeps the logarithm finite."""


def jacob_cov(network: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Return -sum log(v + k) + 1 / (v + k) over the eigenvalues v of the correlation matrix of the rows of J.

    Row i of J is the gradient of the sum of all outputs by input i of the batch. A network that ignores its inputs has
    the lowest score.

    References:
        Mellor et al., "Neural Architecture Search without Training", first version of 2020 (arXiv:2006.04647v1),
        section 3; the name is that of Abdelfattah et al., ICLR 2021.
    """
    given = [each.detach().clone().requires_grad_(each.is_floating_point()) for each in inputs]
    total = sum(output.sum() for output in outputs_of(network(*given)))
    leaves = [each for each in given if each.requires_grad]
    if not isinstance(total, Tensor) or not total.requires_grad:
        return LOWEST
    gradients = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
    rows = torch.cat([gradient.flatten(1) for gradient in gradients], dim=1).double()
    rows = rows - rows.mean(1, keepdim=True)
    norms = rows.norm(dim=1, keepdim=True)
    if not (norms > 0).all():
        return LOWEST
    rows = rows / norms
    eigenvalues = torch.linalg.eigvalsh(rows @ rows.T).clamp_min(0)
    return -float((torch.log(eigenvalues + K) + 1 / (eigenvalues + K)).sum())


def outputs_of(output: object) -> list[Tensor]:
    """Return the tensors of floating point in what a network returns."""
    return [each for each in tree_leaves(output) if isinstance(each, Tensor) and each.is_floating_point()]
