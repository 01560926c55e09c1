"""The exact optimum of a level whose loss is quadratic in its parameters, and the derivative of that optimum.

One Newton step ends at the minimum of a quadratic. There the implicit function theorem applies (Lorraine et al.,
AISTATS 2020, theorem 1), as in `nas.hypergradient.implicit`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nas.errors import ConfigError
from nas.hypergradient.dense_hessian import FlatError, derivatives, flat, less
from nas.hypergradient.response import Loss, Parameters, Step, constants
from nas.registry import Count, NonNegative


class Closed:
    """`w*(a) = argmin_w f(w, a) + ridge / 2 |w - center|^2`, hence `F_a(a, w*) - F_w(a, w*) (f_ww + ridge I)^-1 f_wa`.

    The upper loss is evaluated at the optimum itself, whatever the current parameters and the optimizer are. For the
    weight `w` of an average, `f = |w D + C - T|^2 / 2`, this is `w* = (<D, T - C> + ridge center) / (|D|^2 + ridge)`.

    Args:
        ridge: weight of the pull towards `center`; above 0 it makes the optimum unique for a flat `f`.
        center: one value for all of the level's parameters.
        limit: largest number of parameters. The Hessian has its square.

    Raises:
        ConfigError: in a call, for a loss that is not quadratic or does not curve upwards in every direction, and for a
            level of more than `limit` parameters.

    References:
        Lorraine et al., Optimizing Millions of Hyperparameters by Implicit Differentiation, AISTATS 2020, theorem 1.
    """

    def __init__(self, ridge: NonNegative = 0.0, center: float = 0.0, limit: Count = 2000) -> None:
        self.ridge = ridge
        self.center = center
        self.limit = limit

    def __call__(self, loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
        way = self._newton(loss, own, constants(others)).detach()
        optimum = less(own, way)
        # Zero up to rounding: it only carries the derivative with respect to the levels above.
        rest = self._newton(loss, optimum, others)
        if rest.norm() > 1e-2 * torch.maximum(way.norm(), flat(list(optimum.values())).norm()):
            raise ConfigError(
                "hypergradient 'closed': the level's loss is not quadratic in its parameters: a Newton step of"
                f" {way.norm():.3g} leaves a further step of {rest.norm():.3g}; use 'implicit' or 'unrolled'"
            )
        return less(optimum, rest)

    def _newton(self, loss: Loss, own: Parameters, others: Parameters) -> Tensor:
        """`(f_ww + ridge I)^-1 (f_w + ridge (w - center))`, flat."""
        gradient, hessian = derivatives(loss, own, others, "closed", self.limit)
        gradient = gradient + self.ridge * (flat(list(own.values())) - self.center)
        hessian.diagonal().add_(self.ridge)
        factor, failed = torch.linalg.cholesky_ex(hessian)
        if failed and hessian.isfinite().all():  # a non-finite step is skipped
            raise FlatError(
                "hypergradient 'closed': the level's loss has no single optimum, since it does not curve upwards in"
                f" every direction; set a ridge above {self.ridge:g}, or use 'unrolled'"
            )
        return torch.cholesky_solve(gradient[:, None], factor)[:, 0]
