"""Unrolled optimization: the level responds by steps of its own optimizer, all of them differentiated.

Liu et al., DARTS, ICLR 2019, eq. 6-7 for one step; Franceschi et al., Forward and Reverse Gradient-Based Hyperparameter
Optimization, ICML 2017, alg. 1 (reverse mode) for more.
"""

from __future__ import annotations

import operator

from nas.errors import ConfigError
from nas.hypergradient.protocol import Loss, Parameters, Step, differentiate, leaves
from nas.hypergradient.twice import twice_differentiable


class Unrolled:
    """`w' = w - xi f_w(a, w)`, hence `F_a(a, w') - xi f_aw F_w'(a, w')`; exact, by differentiating through the steps.

    With one step and SGD this is the second-order DARTS gradient, whose Hessian is that of the lower (training) loss.
    Every step keeps its graph until the gradient is known.

    Args:
        steps: the number of optimizer steps to differentiate through. Raises `ConfigError` below 1.
    """

    def __init__(self, steps: int = 1) -> None:
        self.steps = operator.index(steps)
        if self.steps < 1:
            raise ConfigError(f"hypergradient 'unrolled' takes at least 1 step, found {steps}")

    def __call__(self, loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
        current = leaves(own)
        for i in range(self.steps):
            with twice_differentiable():
                value = loss.after(i)(current, others)
            gradients = differentiate(value, list(current.values()), create_graph=True)
            current = step(current, dict(zip(current, gradients, strict=True)))
        return current
