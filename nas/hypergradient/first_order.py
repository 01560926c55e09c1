"""The first-order approximation (Liu et al., DARTS, ICLR 2019, sec. 2.3 with xi = 0)."""

from __future__ import annotations

from nas.hypergradient.response import Loss, Parameters, Step


class FirstOrder:
    """The level does not respond: `d upper / d a = F_a(a, w)`.

    References:
        Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, sec. 2.3 with xi = 0.
    """

    def __call__(self, loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
        return own
