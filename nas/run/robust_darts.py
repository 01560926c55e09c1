"""Early stopping by the curvature of the validation loss (Zela et al., RobustDARTS, ICLR 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from nas.declarations import EIGENVALUE, declares
from nas.errors import ConfigError
from nas.registry import Count
from nas.run.collapse import DELTA, FACTOR, WINDOW, sharpened
from nas.run.stopping import Epoch, Stop, require_epochs


@declares(reads="mixing weights", writes="stopping", needs=EIGENVALUE)
class RobustDarts:
    """Stops if the largest eigenvalue of the arch Hessian has grown, and returns the genotype from before.

    Eigenvalues are averaged over centred windows; at the first epochs a window is cut short. The search stops if the
    last whole window has a mean above `factor` times that of the window `delta` epochs earlier. It returns the genotype
    of the centre of the earlier window. If a mean is not above 0, or an eigenvalue is not finite, the search continues.

    Args:
        epochs: of the search; the eigenvalue is taken at each of them.
        window: the eigenvalues of a mean, an odd number.
        delta: how many epochs the compared windows are apart.
        factor: the largest ratio of the means.
        start: the earliest epoch whose genotype can be returned, counted from 0.

    Raises:
        ConfigError: the window is even, or the search is too short.

    References:
        Zela et al., Understanding and Robustifying Differentiable Architecture Search, ICLR 2020, sec. 4.3;
        automl/RobustDARTS, `src/utils.py`, `EVLocalAvg`.
    """

    def __init__(
        self,
        epochs: int,
        *,
        window: Count = WINDOW,
        delta: Count = DELTA,
        factor: Annotated[float, msgspec.Meta(ge=1)] = FACTOR,
        start: Annotated[int, msgspec.Meta(ge=0)] = 10,
    ) -> None:
        if window % 2 == 0:
            raise ConfigError(f"search.stopping.window must be odd, so that it has a centre, got {window}")
        require_epochs(start + delta + window // 2 + 1, epochs)
        self._window, self._delta, self._factor, self._start = window, delta, factor, start

    def __call__(self, epochs: Sequence[Epoch], /) -> Stop | None:
        values = [epoch.indicators.get("eigenvalue") for epoch in epochs]
        centre = sharpened(values, self._window, self._delta, self._factor)
        if centre is None or centre < self._start:
            return None
        reason = (
            f"the largest eigenvalue of the arch Hessian, averaged over {self._window} epochs, has grown by more than"
            f" {self._factor - 1:.0%} in {self._delta} epochs"
        )
        return Stop(reason, epochs[centre].step)
