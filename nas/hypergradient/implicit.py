"""Implicit differentiation with a dense Hessian (Lorraine et al., AISTATS 2020, theorem 1), for small levels."""

from __future__ import annotations

import torch
from torch import Tensor

from nas.hypergradient.damping import Damping, Matrix, damping_of, uncovered
from nas.hypergradient.dense_hessian import derivatives, flat, gradient_of, less, require_few, shaped
from nas.hypergradient.generalized_gauss_newton import GeneralizedGaussNewton
from nas.hypergradient.response import Loss, Parameters, Step
from nas.registry import Count


class Implicit:
    """`dw*/da = -(f_ww + damping I)^-1 f_wa` at the current parameters; exact at the level's optimum with damping 0.

    Args:
        damping: added to the diagonal of the Hessian: a number, or `{relative: r}`, which is `r` times the largest
            eigenvalue of the generalized Gauss-Newton matrix.
        curvature: `hessian`, or `gauss_newton`: the generalized Gauss-Newton matrix in place of `f_ww`.
        limit: largest number of parameters. The Hessian has its square.

    Raises:
        ConfigError: in a call, for a damping that does not make the Hessian positive definite, and for a level of more
            than `limit` parameters.

    References:
        Lorraine et al., Optimizing Millions of Hyperparameters by Implicit Differentiation, AISTATS 2020, theorem 1.
    """

    def __init__(self, damping: Damping = 1e-2, limit: Count = 2000, curvature: Matrix = "hessian") -> None:
        self.damping = damping
        self.limit = limit
        self.curvature = curvature

    def __call__(self, loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
        damping = damping_of(self.damping, loss, own, others)
        if self.curvature == "hessian":
            gradient, matrix = derivatives(loss, own, others, "implicit", self.limit)
        else:
            gradient, matrix = gradient_of(loss, own, others), self._gauss_newton(loss, own, others)
        finite = bool(matrix.isfinite().all())  # a step that is not finite is skipped
        values = torch.linalg.eigvalsh(matrix) if finite else matrix.new_ones(1)
        if values[0] + damping <= torch.finfo(values.dtype).eps * len(values) * values.abs().max():
            raise uncovered("implicit", values[0].item(), damping)
        matrix.diagonal().add_(damping)
        # Zero in value: it only carries the derivative of the level's optimum with respect to the levels above.
        return less(own, torch.linalg.solve_ex(matrix, gradient - gradient.detach())[0])

    def _gauss_newton(self, loss: Loss, own: Parameters, others: Parameters) -> Tensor:
        """The generalized Gauss-Newton matrix, (n, n)."""
        count = require_few(own, "implicit", self.limit)
        matrix = GeneralizedGaussNewton(loss, own, others)
        first = next(iter(own.values()))
        units = torch.eye(count, dtype=first.dtype, device=first.device)
        return torch.stack([flat(matrix(shaped(unit, own))) for unit in units])
