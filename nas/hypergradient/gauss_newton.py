"""Rank-one Gauss-Newton: implicit differentiation with a Hessian made of the gradient (Liu et al., TPAMI 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from nas.hypergradient.attach import attach_pullback
from nas.hypergradient.response import Loss, Parameters, Step, leaves
from nas.hypergradient.vectors import dot, times


class GaussNewton:
    """`F_a - (F_w . f_w) / (f_w . f_w) f_a`, at the current parameters.

    It follows from `dw*/da = -f_ww^-1 f_wa` with `f_ww ~ f_w f_w^T` (its pseudo-inverse) and `f_wa ~ f_w f_a^T`. The
    method computes one gradient of the lower loss, with respect to both levels at once.

    If `f_w` vanishes, the quotient has no limit and consists of rounding errors. Therefore the level does not respond
    if `|f_w| <= sqrt(eps) |F_w|`, with the `eps` of the dtype (`|f_w|` below 3.5e-4 `|F_w|` in float32).

    Args:
        reuse: take `f_w` and `f_a` from the level's last step, at the parameters before it, in place of a further
            gradient. Needs `batches: repeat`. If the level did not move in this search step, or responds to levels
            below it, the gradient is computed nevertheless.

    References:
        Liu et al., A Task-Guided, Implicitly-Searched and Meta-Initialized Deep Model for Image Fusion, TPAMI 2024
        (TIM, the implicit architecture search).
    """

    def __init__(self, *, reuse: bool = False) -> None:
        self.reuse = reuse

    def __call__(self, loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
        def pull(v: list[Tensor], fixed: Parameters) -> list[Tensor]:
            point = leaves(own)
            above = {name: value for name, value in fixed.items() if value.requires_grad}
            found = loss.taken if self.reuse else {}
            if not found.keys() >= above.keys():
                gradients = loss.gradient(point, fixed, [*point.values(), *above.values()])
                found = dict(zip((*point, *above), gradients, strict=True))
            f_w, f_a = ([found[name] for name in names] for names in (point, above))
            square = dot(f_w, f_w)
            vanishes = square <= torch.finfo(square.dtype).eps * dot(v, v)
            return times(f_a, torch.where(vanishes, 0.0, -dot(v, f_w) / square))

        return attach_pullback(own, others, pull)
