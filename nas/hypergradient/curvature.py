"""Products with second derivatives of a level's loss at one point (Pearlmutter, Neural Computation 1994)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nas.hypergradient.attach import asked
from nas.hypergradient.response import Loss, Parameters, differentiate, leaves
from nas.kernels.second_order import twice_differentiable


class Curvature:
    """Second derivatives of `f(w, a)`. The graph of `f_w` stays in memory as long as this object exists.

    Args:
        loss: the level's loss.
        own: values of its parameters `w`.
        others: parameters of all other levels; `a` are those that require a gradient.
    """

    def __init__(self, loss: Loss, own: Parameters, others: Parameters) -> None:
        self._own: Sequence[Tensor] = list(leaves(own).values())
        self._above = asked(others)
        with torch.enable_grad(), twice_differentiable():
            value = loss(dict(zip(own, self._own, strict=True)), others)
            self._gradient = differentiate(value, self._own, create_graph=True)

    def hessian(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """Return `f_ww vector`, which has the shapes of `w`, as `vector` has."""
        return differentiate(self._gradient, self._own, vector, retain_graph=True)

    def mixed(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """Return `f_aw vector`, which has the shapes of `a`. This must be the last product: it frees the graph."""
        return differentiate(self._gradient, self._above, vector)
