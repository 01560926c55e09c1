"""Implicit differentiation with a dense Hessian, for levels of a few hundred parameters.

Lorraine et al., Optimizing Millions of Hyperparameters by Implicit Differentiation, AISTATS 2020, theorem 1.
"""

from __future__ import annotations

import operator

import torch

from nas.errors import ConfigError
from nas.hypergradient.dense import FlatError, derivatives, less
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

    def __call__(self, loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
        gradient, hessian = derivatives(loss, own, others, "implicit", self.limit)
        hessian.diagonal().add_(self.damping)
        # Zero in value: it only carries the derivative of the level's optimum with respect to the levels above.
        shift, singular = torch.linalg.solve_ex(hessian, gradient - gradient.detach())
        if singular:
            raise FlatError(f"hypergradient 'implicit': the Hessian is singular; set a damping above {self.damping:g}")
        return less(own, shift)
