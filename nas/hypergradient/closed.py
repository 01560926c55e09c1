"""The exact optimum of a level whose loss is quadratic in its parameters, and the derivative of that optimum.

Newton's step, which ends in the minimum of a quadratic, and there the implicit function theorem, as in
`nas.hypergradient.implicit`.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor

from nas.errors import ConfigError
from nas.hypergradient.dense import FlatError, derivatives, flat, less
from nas.hypergradient.protocol import Loss, Parameters, Step, constants


class Closed:
    """`w*(a) = argmin_w f(w, a) + ridge / 2 |w - center|^2`, hence `F_a(a, w*) - F_w(a, w*) (f_ww + ridge I)^-1 f_wa`.

    Wherever the level stands, and whatever its optimizer: the upper loss sees the optimum itself. For the weight `w` of
    an average, `f = |w D + C - T|^2 / 2`, that is `w* = (<D, T - C> + ridge center) / (|D|^2 + ridge)`.

    Args:
        ridge: draws the parameters towards `center`, at least 0; above 0 it makes the optimum unique where `f` is flat.
        center: the value, one for all of the level's parameters.
        limit: the largest number of parameters; the Hessian has its square.

    Raises `ConfigError` for values out of range, and where a level has no such optimum: its loss is not quadratic, or
    does not curve upwards in every direction.
    """

    def __init__(self, ridge: float = 0.0, center: float = 0.0, limit: int = 2000) -> None:
        if not ridge >= 0:
            raise ConfigError(f"hypergradient 'closed' takes a ridge of at least 0, found {ridge}")
        self.ridge = ridge
        self.center = center
        self.limit = operator.index(limit)

    def __call__(self, loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
        way = self._newton(loss, own, constants(others)).detach()
        optimum = less(own, way)
        # Zero in value but for rounding: it carries the derivative with respect to the levels above.
        rest = self._newton(loss, optimum, others)
        if rest.norm() > 1e-2 * torch.maximum(way.norm(), flat(list(optimum.values())).norm()):
            raise ConfigError(
                "hypergradient 'closed': the level's loss is not quadratic in its parameters: a Newton step of"
                f" {way.norm():.3g} leaves {rest.norm():.3g} to go; take 'implicit' or 'unrolled'"
            )
        return less(optimum, rest)

    def _newton(self, loss: Loss, own: Parameters, others: Parameters) -> Tensor:
        """`(f_ww + ridge I)^-1 (f_w + ridge (w - center))`, flat."""
        gradient, hessian = derivatives(loss, own, others, "closed", self.limit)
        gradient = gradient + self.ridge * (flat(list(own.values())) - self.center)
        hessian.diagonal().add_(self.ridge)
        factor, failed = torch.linalg.cholesky_ex(hessian)
        if failed and hessian.isfinite().all():  # else the engine skips the step
            raise FlatError(
                "hypergradient 'closed': the level's loss does not curve upwards in every direction, so that it has no"
                f" single optimum; set a ridge above {self.ridge:g}, or take 'unrolled'"
            )
        return torch.cholesky_solve(gradient[:, None], factor)[:, 0]
