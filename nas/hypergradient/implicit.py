"""Implicit differentiation with a dense Hessian, for levels of a few hundred parameters.

Lorraine et al., Optimizing Millions of Hyperparameters by Implicit Differentiation, AISTATS 2020, theorem 1.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor
from torch.autograd import grad

from nas.errors import ConfigError
from nas.hypergradient.protocol import Loss, Parameters, Step


class Implicit:
    """`dw*/da = -(f_ww + damping I)^-1 f_wa` at the current parameters; exact at the level's optimum with damping 0.

    Args:
        damping: added to the diagonal of the Hessian, at least 0. It keeps the solution finite where the loss is flat;
            with 0 a singular Hessian raises `ConfigError`.
        limit: the largest number of parameters; the Hessian has its square. Raises `ConfigError` above it.
    """

    def __init__(self, damping: float = 1e-2, limit: int = 2000) -> None:
        if damping < 0:
            raise ConfigError(f"hypergradient 'implicit' takes a damping of at least 0, found {damping}")
        self.damping = damping
        self.limit = operator.index(limit)

    def __call__(self, loss: Loss, parameters: Parameters, step: Step) -> Parameters:
        count = sum(value.numel() for value in parameters.values())
        if count > self.limit:
            raise ConfigError(
                f"hypergradient 'implicit' solves a dense system of at most {self.limit} parameters, found {count}"
            )
        current = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        leaves = list(current.values())
        first = grad(loss(current), leaves, create_graph=True, allow_unused=True, materialize_grads=True)
        gradient = torch.cat([g.reshape(-1) for g in first])
        units = torch.eye(count, dtype=gradient.dtype, device=gradient.device)
        hessian = torch.stack([_product(gradient, unit, leaves) for unit in units]) + self.damping * units
        # Zero in value: it only carries the derivative of the level's optimum with respect to the levels above.
        shift, singular = torch.linalg.solve_ex(hessian, gradient - gradient.detach())
        if singular:
            raise ConfigError(
                f"hypergradient 'implicit': the Hessian is singular; set a damping above {self.damping:g}"
            )
        pieces = shift.split([leaf.numel() for leaf in leaves])
        return {
            name: leaf.detach() - piece.view_as(leaf)
            for (name, leaf), piece in zip(current.items(), pieces, strict=True)
        }


def _product(gradient: Tensor, vector: Tensor, leaves: list[Tensor]) -> Tensor:
    """The product of the Hessian with a vector, by differentiating the gradient once more."""
    if not gradient.requires_grad:
        return torch.zeros_like(vector)
    row = grad(gradient, leaves, vector, retain_graph=True, allow_unused=True, materialize_grads=True)
    return torch.cat([r.reshape(-1) for r in row])
