"""The scores `params` and `flops`: how large a network is."""

from __future__ import annotations

from collections.abc import Callable

from nas.cost.network_cost import Unit


def params(cost: Callable[[Unit], float]) -> float:
    """Return the number of parameters: the baseline of zero-cost scores."""
    return cost("parameters")


def flops(cost: Callable[[Unit], float]) -> float:
    """Return the FLOPs of a forward pass with batch size 1 (1 multiply-add = 2 FLOPs)."""
    return cost("flops")
