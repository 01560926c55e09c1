"""Implicit differentiation by conjugate gradients (Pedregosa, ICML 2016, alg. 1; Rajeswaran et al., NeurIPS 2019)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nas.hypergradient.attach import attach_pullback
from nas.hypergradient.curvature import Curvature
from nas.hypergradient.damping import Damping, Matrix, damping_of, uncovered
from nas.hypergradient.generalized_gauss_newton import GeneralizedGaussNewton
from nas.hypergradient.response import Loss, Parameters, Step
from nas.hypergradient.vectors import Vector, add, dot, times
from nas.registry import Count


class ConjugateGradient:
    """`-x^T f_wa`; conjugate gradients solve `(f_ww + damping I) x = F_w`, at the current parameters.

    The result is exact after as many iterations as `f_ww` has distinct eigenvalues.

    Args:
        iterations: largest number of iterations, and of products with the Hessian.
        damping: added to the diagonal of the Hessian: a number, or `{relative: r}`, which is `r` times the largest
            eigenvalue of the generalized Gauss-Newton matrix.
        curvature: `hessian`, or `gauss_newton`: the generalized Gauss-Newton matrix in place of `f_ww`.

    Raises:
        ConfigError: in the backward pass, for a direction in which the damped Hessian curves downwards: the quadratic
            then has no minimum.

    References:
        Pedregosa, Hyperparameter Optimization with Approximate Gradient, ICML 2016, alg. 1.
        Rajeswaran et al., Meta-Learning with Implicit Gradients, NeurIPS 2019, alg. 2.
    """

    def __init__(self, iterations: Count = 5, damping: Damping = 1e-2, curvature: Matrix = "hessian") -> None:
        self.iterations = iterations
        self.damping = damping
        self.curvature = curvature

    def __call__(self, loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
        def pull(v: list[Tensor], fixed: Parameters) -> list[Tensor]:
            damping = damping_of(self.damping, loss, own, fixed)
            if self.curvature == "gauss_newton":
                solution = self._solve(GeneralizedGaussNewton(loss, own, fixed), damping, v)
                return times(Curvature(loss, own, fixed).mixed(solution), -1.0)
            curvature = Curvature(loss, own, fixed)
            return times(curvature.mixed(self._solve(curvature.hessian, damping, v)), -1.0)

        return attach_pullback(own, others, pull)

    def _solve(self, matrix: Callable[[Vector], list[Tensor]], damping: float, v: list[Tensor]) -> list[Tensor]:
        solution = [torch.zeros_like(tensor) for tensor in v]
        residual = direction = v
        square = dot(v, v)
        for _ in range(self.iterations):
            product = add(matrix(direction), direction, damping)
            bend = dot(direction, product)
            if not (length := dot(direction, direction)) > 0:  # the solution is exact, or not finite
                break
            if bend <= 0:
                raise uncovered("conjugate_gradient", (bend / length).item() - damping, damping)
            length = square / bend
            solution = add(solution, direction, length)
            residual = add(residual, product, -length)
            square, previous = dot(residual, residual), square
            direction = add(residual, direction, square / previous)
        return solution
