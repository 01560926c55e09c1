"""Implicit differentiation by the conjugate gradient method.

Pedregosa, Hyperparameter Optimization with Approximate Gradient, ICML 2016, alg. 1; Rajeswaran et al., Meta-Learning
with Implicit Gradients, NeurIPS 2019.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor

from nas.errors import ConfigError
from nas.hypergradient.attach import attach
from nas.hypergradient.curvature import Curvature
from nas.hypergradient.protocol import Loss, Parameters, Step
from nas.hypergradient.vectors import add, dot, times


class ConjugateGradient:
    """`-x^T f_wa` where conjugate gradients solve `(f_ww + damping I) x = F_w`, at the current parameters.

    Exact after as many iterations as `f_ww` has distinct eigenvalues. Stops at a direction in which the damped Hessian
    does not curve upwards (Steihaug, 1983): there the quadratic has no minimum, and a larger damping is due.

    Args:
        iterations: the largest number of iterations, at least 1: as many products with the Hessian.
        damping: added to the diagonal of the Hessian, at least 0.

    Raises `ConfigError` for values out of range.
    """

    def __init__(self, iterations: int = 5, damping: float = 1e-2) -> None:
        self.iterations = operator.index(iterations)
        if self.iterations < 1:
            raise ConfigError(f"hypergradient 'conjugate_gradient' takes at least 1 iteration, found {iterations}")
        if damping < 0:
            raise ConfigError(f"hypergradient 'conjugate_gradient' takes a damping of at least 0, found {damping}")
        self.damping = damping

    def __call__(self, loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
        def pull(v: list[Tensor], fixed: Parameters) -> list[Tensor]:
            curvature = Curvature(loss, own, fixed)
            return times(curvature.mixed(self._solve(curvature, v)), -1.0)

        return attach(own, others, pull)

    def _solve(self, curvature: Curvature, v: list[Tensor]) -> list[Tensor]:
        solution = [torch.zeros_like(tensor) for tensor in v]
        residual = direction = v
        square = dot(v, v)
        for _ in range(self.iterations):
            product = add(curvature.hessian(direction), direction, self.damping)
            bend = dot(direction, product)
            if bend <= 0:  # also where nothing is left to solve
                break
            length = square / bend
            solution = add(solution, direction, length)
            residual = add(residual, product, -length)
            square, previous = dot(residual, residual), square
            direction = add(residual, direction, square / previous)
        return solution
