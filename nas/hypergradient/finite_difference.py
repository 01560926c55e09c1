"""One unrolled step whose second derivative is a central difference (Liu et al., DARTS, ICLR 2019, eq. 8)."""

from __future__ import annotations

import torch
from torch import Tensor

from nas.hypergradient.attach import asked, attach_pullback
from nas.hypergradient.response import Loss, Parameters, Step, constants, leaves
from nas.hypergradient.vectors import add, dot
from nas.registry import Positive


class FiniteDifference:
    """`f_aw u ~ (f_a(a, w + eps u) - f_a(a, w - eps u)) / (2 eps)` with `eps = radius |w| / |u|`.

    `f` is the level's own loss, and `w` are the parameters before its step. `u` is the gradient of the upper loss at
    the parameters `w'` after the step, pulled back through the optimizer's step to the gradient that the step descends.
    For SGD this is `-xi F_w'`, as in eq. 7-8 of DARTS. The derivative of the step is exact, also for Adam, momentum,
    weight decay and clipping. The method computes three gradients, two of them of the parameters above alone, and no
    second derivative.

    With ReLU and max pooling the distance must be large enough to average over many kinks; a smaller one is worse.
    DARTS uses `eps = 0.01 / |u|`, less than a thousandth of |w| in its networks, too small for a useful derivative.
    `tools/bench_hypergradient.py --along` measures this, and `nas check-hypergradient` measures it on any search.

    Args:
        radius: distance between `w` and each of the two points, as a share of the norm of `w`.

    References:
        Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, eq. 8.
    """

    unrolls = True

    def __init__(self, radius: Positive = 0.005) -> None:
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
        return step(own, attach_pullback(dict(zip(names, gradients, strict=True)), others, difference))
