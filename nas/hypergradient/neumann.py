"""Implicit differentiation by a Neumann series.

Lorraine et al., Optimizing Millions of Hyperparameters by Implicit Differentiation, AISTATS 2020, theorem 2 and alg. 3.
"""

from __future__ import annotations

import operator

from torch import Tensor

from nas.errors import ConfigError
from nas.hypergradient.attach import attach
from nas.hypergradient.curvature import Curvature
from nas.hypergradient.protocol import Loss, Parameters, Step
from nas.hypergradient.vectors import add, times


class Neumann:
    """`f_ww^-1 ~ s sum_{j < terms} (I - s f_ww)^j` in `dw*/da = -f_ww^-1 f_wa`, at the current parameters.

    Converges where every eigenvalue of `f_ww` is in (0, 2 / s); the error then shrinks by `|1 - s eigenvalue|` a term.
    At the optimum of the level it equals as many unrolled steps of gradient descent with learning rate `s`.

    Args:
        terms: the number of terms, at least 1: as many products with second derivatives.
        step_size: `s`, above 0. The learning rate of a level trained by SGD is a safe choice.

    Raises `ConfigError` for values out of range.
    """

    def __init__(self, terms: int = 5, step_size: float = 0.01) -> None:
        self.terms = operator.index(terms)
        if self.terms < 1:
            raise ConfigError(f"hypergradient 'neumann' takes at least 1 term, found {terms}")
        if not step_size > 0:
            raise ConfigError(f"hypergradient 'neumann' takes a step_size above 0, found {step_size}")
        self.step_size = step_size

    def __call__(self, loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
        def pull(v: list[Tensor], fixed: Parameters) -> list[Tensor]:
            curvature = Curvature(loss, own, fixed)
            term = total = v
            for _ in range(self.terms - 1):
                term = add(term, curvature.hessian(term), -self.step_size)
                total = add(total, term)
            return times(curvature.mixed(total), -self.step_size)

        return attach(own, others, pull)
