"""Products with the second derivatives of a level's loss at one point, by differentiating its gradient once more."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nas.hypergradient.attach import asked
from nas.hypergradient.protocol import Loss, Parameters, differentiate, leaves
from nas.hypergradient.twice import twice_differentiable


class Curvature:
    """Second derivatives of `f(w, a)`; the graph of `f_w` is kept as long as this object lives.

    Args:
        loss: the level's loss.
        own: the values of its parameters `w`.
        others: the parameters of all other levels; `a` are those that require a gradient.
    """

    def __init__(self, loss: Loss, own: Parameters, others: Parameters) -> None:
        self._own: Sequence[Tensor] = list(leaves(own).values())
        self._above = asked(others)
        with torch.enable_grad(), twice_differentiable():
            value = loss(dict(zip(own, self._own, strict=True)), others)
            self._gradient = differentiate(value, self._own, create_graph=True)

    def hessian(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """`f_ww vector`: of the shapes of `w`, as `vector`."""
        return differentiate(self._gradient, self._own, vector, retain_graph=True)

    def mixed(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """`f_aw vector`: from the shapes of `w` to those of `a`. Comes last: it frees the graph."""
        return differentiate(self._gradient, self._above, vector)
