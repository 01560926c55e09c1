"""What a hypergradient method is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

Parameters = dict[str, Tensor]
"""Parameters of one level, by name."""

Loss = Callable[[Parameters], Tensor]
"""A level's loss as a function of its own parameters; the parameters of the other levels are part of its graph."""

Step = Callable[[Parameters, Parameters], Parameters]
"""One step of a level's optimizer, differentiable: (parameters, gradients) to parameters."""


class Response(Protocol):
    """The parameters of a level as a differentiable function of the levels above it."""

    def __call__(self, loss: Loss, parameters: Parameters, step: Step) -> Parameters:
        """The level's parameters, attached to the graph of whatever `loss` depends on besides them.

        Args:
            loss: the level's own loss (never the upper one), as a function of its parameters.
            parameters: their current values, without a graph.
            step: the step that the level's optimizer would really take from here.
        """
