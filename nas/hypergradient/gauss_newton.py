"""Rank-one Gauss-Newton: implicit differentiation with a Hessian made of the gradient alone."""

from __future__ import annotations

import torch
from torch import Tensor

from nas.hypergradient.attach import asked, attach
from nas.hypergradient.protocol import Loss, Parameters, Step, leaves
from nas.hypergradient.vectors import dot, times


class GaussNewton:
    """`F_a - (F_w . f_w) / (f_w . f_w) f_a`, at the current parameters.

    From `dw*/da = -f_ww^-1 f_wa` with `f_ww ~ f_w f_w^T` (its pseudo-inverse) and `f_wa ~ f_w f_a^T`; Liu et al., A
    Task-Guided, Implicitly-Searched and Meta-Initialized Deep Model for Image Fusion, TPAMI 2024 (TIM, the implicit
    architecture search). Costs one gradient of the lower loss, with respect to both levels at once.

    Where `f_w` is zero the level does not respond: the quotient has no limit there.
    """

    def __call__(self, loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
        def pull(v: list[Tensor], fixed: Parameters) -> list[Tensor]:
            point, above = leaves(own), asked(fixed)
            gradients = loss.gradient(point, fixed, [*point.values(), *above])
            f_w, f_a = gradients[: len(point)], gradients[len(point) :]
            square = dot(f_w, f_w)
            return times(f_a, torch.where(square == 0, 0.0, -dot(v, f_w) / square))

        return attach(own, others, pull)
