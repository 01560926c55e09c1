"""Unrolled optimization: the level responds by steps of its own optimizer (Liu et al., DARTS, ICLR 2019, eq. 6-7)."""

from __future__ import annotations

import operator

from torch.autograd import grad

from nas.errors import ConfigError
from nas.hypergradient.protocol import Loss, Parameters, Step


class Unrolled:
    """`w' = w - xi f_w(a, w)`, hence `F_a(a, w') - xi f_aw F_w'(a, w')`; exact, by differentiating through the steps.

    With one step and SGD this is the second-order DARTS gradient, whose Hessian is that of the lower (training) loss.

    Args:
        steps: the number of optimizer steps to differentiate through. Raises `ConfigError` below 1.
    """

    def __init__(self, steps: int = 1) -> None:
        self.steps = operator.index(steps)
        if self.steps < 1:
            raise ConfigError(f"hypergradient 'unrolled' takes at least 1 step, found {steps}")

    def __call__(self, loss: Loss, parameters: Parameters, step: Step) -> Parameters:
        current = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        for _ in range(self.steps):
            gradients = grad(
                loss(current), list(current.values()), create_graph=True, allow_unused=True, materialize_grads=True
            )
            current = step(current, dict(zip(current, gradients, strict=True)))
        return current
