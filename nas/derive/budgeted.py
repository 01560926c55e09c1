"""The policy `budgeted`: the most probable genotype within a budget of parameters or FLOPs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from nas.derive.tradeoffs import best_at_each_cost
from nas.errors import ConfigError
from nas.genotype.decision import Choice, Decision, Share
from nas.registry import Positive

UNITS = {"params": "parameters", "flops": "flops"}
"""What a budget can limit, as a configuration and `nas.cost` name it."""


def choose_within_budget(
    decisions: Mapping[str, Decision],
    weights: Mapping[str, Tensor],
    shares: Callable[[str], Sequence[Share]],
    *,
    params: Positive | None = None,
    flops: Positive | None = None,
) -> dict[str, Choice]:
    """Choose what maximizes the sum of the logarithms of mixing weights, of all genotypes within a budget.

    The maximum is exact (see `nas.derive.tradeoffs`). Of equal ones the cheapest is chosen.

    Args:
        decisions: the decisions of a space, by label.
        weights: the mixing weights `(candidates,)` of each decision that has arch parameters.
        shares: the cost of a derived network as a sum of shares, by unit.
        params: the largest number of parameters of the derived network.
        flops: the largest number of FLOPs of one forward pass on the task's example, 2 for a multiply-add.

    Raises:
        ConfigError: not exactly one budget is given, or all genotypes cost more; the message says what the cheapest
            costs.
        DivergedError: a mixing weight is not finite.
    """
    stated = {name: most for name, most in (("params", params), ("flops", flops)) if most is not None}
    if len(stated) != 1:
        found = " and ".join(stated) or "none"
        raise ConfigError(f"derivation 'budgeted' must have one budget, 'params' or 'flops', got {found}")
    ((name, most),) = stated.items()
    costs = shares(UNITS[name])
    best = best_at_each_cost(decisions, weights, costs, most)
    if not best:
        least = best_at_each_cost(decisions, {}, costs, math.inf)[0].cost
        raise ConfigError(
            f"derivation 'budgeted': {name} must be at least {least:.0f}, those of the cheapest network, got {most:g}."
            " Raise the budget"
        )
    return best[-1].choices
