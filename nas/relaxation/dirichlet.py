"""The Dirichlet relaxation (Chen et al., DrNAS, ICLR 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, nn

from nas.declarations import DIRICHLET, EVERY_CANDIDATE, LEARNED, SAME_CANDIDATES, SHARES, declares
from nas.relaxation.sampling import Draw


@declares(reads="logits", writes="mixing weights", gives=(SHARES, EVERY_CANDIDATE, LEARNED, SAME_CANDIDATES, DIRICHLET))
class Dirichlet(nn.Module):
    """Mixing weights drawn from a Dirichlet distribution of the concentration `elu(a) + 1`, with their exact gradient.

    In eval mode they are its mean, concentration over total concentration. The regularizers `dirichlet_l2` and
    `dirichlet_kl` keep the distribution near the uniform one.

    Args:
        read: what a genotype is derived from: the `mean`, or the `softmax` of the logits, as in the authors' code
            (xiangning-chen/DrNAS, `DARTS-space/model_search.py`). Both rank the candidates of one decision alike, but
            not the in-edges of a node.

    Shape:
        - Input: logits `(candidates,)`.
        - Output: mixing weights `(candidates,)`.

    References:
        Chen et al., DrNAS: Dirichlet Neural Architecture Search, ICLR 2021.
    """

    def __init__(self, read: Literal["mean", "softmax"] = "mean") -> None:
        super().__init__()
        self.read = read

    def forward(self, logits: Tensor) -> Tensor:
        return log_concentration(logits).softmax(-1)

    def strengths(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1) if self.read == "softmax" else self(logits)

    def draw(self, logits: Tensor, draw: Draw) -> Tensor:
        if not draw.random:
            mean: Tensor = self(logits)
            return mean
        value, slope = draw.together(_log_gammas)
        log = log_concentration(logits)
        # Linear in log c around its present value: exact in value and in the first derivative.
        return (value.to(logits) + slope.to(logits) * (log - log.detach())).softmax(-1)


def log_concentration(logits: Tensor) -> Tensor:
    """Return `log(elu(a) + 1)`, which is finite for every logit."""
    return logits.relu().log1p() + logits.clamp(max=0)


def _log_gammas(draws: Sequence[Draw]) -> Sequence[tuple[Tensor, Tensor]]:
    """What `log_gamma` returns for each draw, by one call for all of them."""
    sizes = [len(draw.candidates) for draw in draws]
    logits = chain.from_iterable(draw.logits for draw in draws)
    u = chain.from_iterable(draw.uniform() for draw in draws)
    v = chain.from_iterable(draw.uniform("boost") for draw in draws)
    values, slopes = log_gamma(list(logits), list(u), list(v))
    return list(zip(torch.split(values, sizes), torch.split(slopes, sizes), strict=True))


def log_gamma(logits: Sequence[float], u: Sequence[float], v: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Draw logarithms of independent numbers from Gamma(c, 1) with `c = elu(a) + 1`; normalized, they are Dirichlet.

    A number is a smooth function of c for given u and v: with x from Gamma(c + 1) by inversion of its distribution
    function at u, `x v^(1 / c)` is from Gamma(c) (Marsaglia and Tsang, 2000). The logarithm never underflows.

    Args:
        logits: a.
        u: numbers from a uniform distribution on (0, 1).
        v: further ones.

    Returns:
        The logarithms, and their derivatives by `log c`, both float64 `(candidates,)` on the CPU.
    """
    log_c = log_concentration(torch.tensor(logits, dtype=torch.double))
    c, below, log_v = log_c.exp(), torch.tensor(u, dtype=torch.double), torch.tensor(v, dtype=torch.double).log()
    x = _quantile(c + 1, below)
    step = 1e-5 * (c + 1)
    upper = below > 0.5
    by_c = (_tail(c + 1 + step, x, upper) - _tail(c + 1 - step, x, upper)) / (2 * step)
    slope = by_c / (_density(c + 1, x) * torch.where(upper, 1.0, -1.0))  # dx/dc at a constant share below x
    return x.log() + log_v / c, c * slope / x - log_v / c


def _quantile(shape: Tensor, u: Tensor) -> Tensor:
    """The number below which Gamma(shape, 1) lies with probability u; the shape is at least 1."""
    # Wilson and Hilferty, 1931; in the lower tail the first term of the series of the distribution function.
    middle = shape * (1 - 1 / (9 * shape) + torch.special.ndtri(u) / (3 * shape.sqrt())).clamp(min=0) ** 3
    first = ((u.log() + torch.lgamma(shape + 1)) / shape).exp()
    x = torch.maximum(middle, first)
    upper = u > 0.5
    share, sign = torch.where(upper, 1 - u, u), torch.where(upper, -1.0, 1.0)
    for _ in range(3):  # Newton's method on the logarithm of the smaller share, which is nearly linear in its tail
        tail = _tail(shape, x, upper)
        change = sign * (tail / share).log() * tail / _density(shape, x)
        x = torch.maximum(x - change, x / 4)
    return x


def _tail(shape: Tensor, x: Tensor, upper: Tensor) -> Tensor:
    """The probability above x or below it, of full relative precision."""
    return torch.where(upper, torch.special.gammaincc(shape, x), torch.special.gammainc(shape, x))


def _density(shape: Tensor, x: Tensor) -> Tensor:
    return ((shape - 1) * x.log() - x - torch.lgamma(shape)).exp()
