"""Implicit differentiation by a Neumann series (Lorraine et al., AISTATS 2020, theorem 2 and alg. 3)."""

from __future__ import annotations

from torch import Tensor

from nas.hypergradient.attach import attach_pullback
from nas.hypergradient.curvature import Curvature
from nas.hypergradient.response import Loss, Parameters, Step
from nas.hypergradient.vectors import add, times
from nas.registry import Count, Positive


class Neumann:
    """`f_ww^-1 ~ s sum_{j < terms} (I - s f_ww)^j` in `dw*/da = -f_ww^-1 f_wa`, at the current parameters.

    The series converges if every eigenvalue of `f_ww` is in (0, 2 / s). Each term then shrinks the error by
    `|1 - s eigenvalue|`. At the optimum of the level, `terms` terms equal `terms` unrolled steps of gradient descent
    with learning rate `s`.

    Args:
        terms: number of terms, and of products with second derivatives.
        step_size: `s`. The learning rate of a level trained by SGD is a safe choice.

    References:
        Lorraine et al., Optimizing Millions of Hyperparameters by Implicit Differentiation, AISTATS 2020, theorem 2 and
        alg. 3.
    """

    def __init__(self, terms: Count = 5, step_size: Positive = 0.01) -> None:
        self.terms = terms
        self.step_size = step_size

    def __call__(self, loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
        def pull(v: list[Tensor], fixed: Parameters) -> list[Tensor]:
            curvature = Curvature(loss, own, fixed)
            term = total = v
            for _ in range(self.terms - 1):
                term = add(term, curvature.hessian(term), -self.step_size)
                total = add(total, term)
            return times(curvature.mixed(total), -self.step_size)

        return attach_pullback(own, others, pull)
