"""Partial channel connections (Xu et al., PC-DARTS, ICLR 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated

import msgspec
from torch import nn

from nas.declarations import declares
from nas.errors import ConfigError
from nas.genotype.decision import Decision
from nas.space.mixed import MixedOperation
from nas.space.operations import changed_channels
from nas.space.partial import PartialOperation
from nas.space.wrapper import Factory, Spot, Wrapper


@declares(reads=("edge inputs", "edge outputs"), writes=("edge inputs", "edge outputs"))
class PartialChannels(Wrapper):
    """Each mixed operation on an in-edge of a cell computes the first `1 / k` of its channels; the others pass.

    The channels that pass are max-pooled by 2x2 at stride 2, and all channels are shuffled afterwards. Candidates must
    be bound to a number of channels by `OperationSet.bind`. Poolings should be followed by a batch norm. The derived
    network has no partial channels, so it inherits no weights.

    Args:
        k: the divisor of the number of channels.

    Raises:
        ConfigError: for a space without in-edges, without bound candidates, or whose channels k does not divide.

    References:
        Xu et al., PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search, ICLR 2020;
        yuhuixu1993/PC-DARTS, `model_search.py`.
    """

    reshapes = True

    def __init__(self, k: Annotated[int, msgspec.Meta(ge=2)] = 4) -> None:
        self.k = k

    def require(self, decisions: Mapping[str, Decision]) -> None:
        parents = {parent for d in decisions.values() if d.kind == "operation" for parent, _ in d.conditions}
        if not any(decisions[parent].kind == "inputs" for parent in parents):
            raise ConfigError(
                "wrapper 'partial_channels': the space must have decisions on the in-edges of a cell, got none. Leave"
                " it out"
            )

    def candidates(self, spot: Spot, made: Mapping[str, Factory]) -> Mapping[str, Factory]:
        if not spot.in_edge:
            return made
        return {
            name: partial(self._narrow, f"candidate '{name}' of '{spot.label}'", make) for name, make in made.items()
        }

    def operation(self, spot: Spot, operation: MixedOperation) -> MixedOperation:
        return PartialOperation(operation, self.k) if spot.in_edge else operation

    def _narrow(self, what: str, make: Factory) -> nn.Module:
        bound = False

        def change(channels: int) -> int:
            nonlocal bound
            bound = True
            if not isinstance(channels, int) or channels % self.k:
                raise ConfigError(
                    f"wrapper 'partial_channels': k must divide the channels of {what}, got k={self.k} for {channels}"
                    " channels. Set another k, or other channels"
                )
            return channels // self.k

        with changed_channels(change):
            module = make()
        if not bound:
            raise ConfigError(
                f"wrapper 'partial_channels': {what} must be bound to a number of channels by OperationSet.bind, got a"
                " function of its own. Bind it, or leave the wrapper out"
            )
        return module
