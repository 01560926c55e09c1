"""Products with the generalized Gauss-Newton matrix of a level's loss, which is positive semidefinite."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nas.errors import ConfigError
from nas.hypergradient.response import Loss, Parameters, constants, differentiate, leaves
from nas.kernels.second_order import twice_differentiable


class GeneralizedGaussNewton:
    """`J^T (d^2 l / d z^2) J` of a loss `l(z)` of the network's outputs `z(w)`, with `J = dz/dw`.

    It is the Hessian without the curvature of the network, and positive semidefinite if `l` is convex in `z`. The graph
    stays in memory as long as this object exists.

    Args:
        loss: the level's loss.
        own: values of its parameters `w`.
        others: parameters of all other levels.

    Raises:
        ConfigError: the outputs of the network are not known: the loss does not call it.

    References:
        Schraudolph, Fast Curvature Matrix-Vector Products for Second-Order Gradient Descent, Neural Computation 2002.
    """

    def __init__(self, loss: Loss, own: Parameters, others: Parameters) -> None:
        self._own: Sequence[Tensor] = list(leaves(own).values())
        self._parts = []
        with torch.enable_grad(), twice_differentiable(), loss.replay():
            for traced in loss.traced():
                value, found = traced(dict(zip(own, self._own, strict=True)), constants(others))
                outputs = [output for output in found if output.requires_grad]
                if not outputs:
                    raise ConfigError(
                        "a Gauss-Newton matrix needs a loss of the network's outputs, got one that does not call the"
                        " network. Give a number as 'damping', and curvature: hessian"
                    )
                slopes = differentiate(value, outputs, create_graph=True)
                units = [torch.zeros_like(output, requires_grad=True) for output in outputs]
                pulled = differentiate(outputs, self._own, units, create_graph=True)  # J^T u
                self._parts.append((outputs, slopes, units, pulled))

    def __call__(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """Return the matrix times `vector`, which has the shapes of `w`."""
        total = [torch.zeros_like(tensor) for tensor in vector]
        for outputs, slopes, units, pulled in self._parts:
            pushed = differentiate(pulled, units, vector, retain_graph=True)  # J v: J^T u is linear in u
            bent = differentiate(slopes, outputs, pushed, retain_graph=True)
            product = differentiate(outputs, self._own, bent, retain_graph=True)
            total = [a + b / len(self._parts) for a, b in zip(total, product, strict=True)]
        return total
