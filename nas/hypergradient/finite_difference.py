"""One unrolled step whose second derivative is a central difference (Liu et al., DARTS, ICLR 2019, eq. 8)."""

from __future__ import annotations

import torch
from torch import Tensor

from nas.errors import ConfigError
from nas.hypergradient.attach import asked, attach
from nas.hypergradient.protocol import Loss, Parameters, Step, constants, leaves
from nas.hypergradient.vectors import add, dot


class FiniteDifference:
    """`f_aw u ~ (f_a(a, w + eps u) - f_a(a, w - eps u)) / (2 eps)` with `eps = radius |w| / |u|`.

    Here `u` is the gradient of the upper loss at the new parameters `w'`, pulled back through the optimizer's step to
    the gradient that the step was given: `-xi F_w'` for SGD, hence eq. 7-8 of DARTS. The step's own derivative is exact
    for Adam, momentum, weight decay and clipping too. `f` is the level's own loss, and `w` where its step begins. Costs
    three gradients, two of them of the parameters above alone, and no second derivative.

    With ReLU and max pooling the difference needs a distance that averages over many kinks: a smaller one is worse.
    DARTS takes `eps = 0.01 / |u|`, less than a thousandth of |w| there, where the result is hardly the derivative any
    more; `tools/bench_hypergradient.py --along` measures it, `nas check-hypergradient` does so on any search.

    Args:
        radius: the distance between `w` and each of the two points, over the norm of `w`; above 0, else `ConfigError`.
    """

    def __init__(self, radius: float = 0.005) -> None:
        if not radius > 0:
            raise ConfigError(f"hypergradient 'finite_difference' takes a radius above 0, found {radius}")
        self.radius = radius

    def __call__(self, loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
        names, values = list(own), list(own.values())
        size = dot(values, values).sqrt()
        distance = self.radius * torch.where(size > 0, size, 1.0)

        def difference(u: list[Tensor], fixed: Parameters) -> list[Tensor]:
            norm = dot(u, u).sqrt()
            if norm == 0:  # the difference of equal points
                return [tensor * 0 for tensor in asked(fixed)]
            eps = distance / norm
            beyond, before = (
                loss.gradient(dict(zip(names, add(values, u, scale), strict=True)), fixed, asked(fixed))
                for scale in (eps, -eps)
            )
            return [(p - m) / (2 * eps) for p, m in zip(beyond, before, strict=True)]

        point = leaves(own)
        gradients = loss.gradient(point, constants(others), list(point.values()))
        return step(own, attach(dict(zip(names, gradients, strict=True)), others, difference))
