"""Exponentiated gradient steps of the arch parameters (Li et al., GAEA, ICLR 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import msgspec
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nas.declarations import SOFTMAX, declares
from nas.registry import NonNegative


@declares(reads="logits", writes="logits", needs=SOFTMAX)
class ExponentiatedGradient(Optimizer):
    """`w <- w exp(-lr dL/dw) / Z`, for mixing weights w that are the softmax of the logits.

    It is mirror descent on the simplex: its mixing weights become sparse fast. The optimizer is given the gradient by
    the logits, `dL/da_i = w_i (dL/dw_i - sum_j w_j dL/dw_j)`. So `dL/da_i / w_i` is `dL/dw_i` but for a number that all
    candidates share, and that number cancels in Z. Mixing weights below `floor` are raised to it before they are
    normalized. The logits become the logarithms of the mixing weights.

    Args:
        parameters: logits; each tensor is one decision, `(candidates,)`.
        lr: the learning rate.
        floor: the least mixing weight. The authors' code applies it before it divides by Z, which is less exact.

    References:
        Li et al., Geometry-Aware Gradient Algorithms for Neural Architecture Search, ICLR 2021, alg. 1;
        liamcli/gaea_release, `cnn/architect/architect_edarts.py`.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: NonNegative = 0.1,
        floor: Annotated[float, msgspec.Meta(gt=0, le=1e-2)] = 1e-5,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "floor": floor})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step; there is no closure to call."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.copy_(_stepped(parameter, parameter.grad, group))

    @staticmethod
    def virtual_step(
        parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """The step as a differentiable function (see `nas.hypergradient.virtual_step`)."""
        return _stepped(parameter, gradient, group), state


def _stepped(logits: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
    by_weight = gradient / logits.softmax(-1).clamp_min(group["floor"])
    rate, least = float(group["lr"]), math.log(group["floor"])
    return (logits - rate * by_weight).log_softmax(-1).clamp_min(least)
