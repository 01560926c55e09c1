"""Give a level's parameters a derivative that is computed only when the gradient of the loss above is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nas.hypergradient.protocol import Parameters, leaves

Pullback = Callable[[list[Tensor], Parameters], list[Tensor]]
"""(cotangents `v` of some values, the other levels' parameters as leaves) to the product `v^T d values / d others`, for
those of the others that it is asked about: in the order of the leaves that require a gradient."""


def attach(values: Parameters, others: Parameters, pullback: Pullback) -> Parameters:
    """`values`, as a function of those of `others` that require a gradient, with `pullback` for its derivative.

    `pullback` runs once, in the backward pass of the loss above, when that loss's own graph is freed already. The
    result cannot be differentiated twice: that raises `RuntimeError`.
    """
    live = {name: value for name, value in others.items() if value.requires_grad}
    if not live:
        return values

    def pull(cotangents: list[Tensor]) -> list[Tensor]:
        return pullback(cotangents, {**others, **leaves(live)})

    attached = _Attached.apply(pull, list(values.values()), *live.values())  # type: ignore[no-untyped-call]
    return dict(zip(values, attached, strict=True))


def asked(others: Parameters) -> list[Tensor]:
    """Those of the others whose gradient a pullback returns."""
    return [value for value in others.values() if value.requires_grad]


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, pull: Callable[[list[Tensor]], list[Tensor]], values: list[Tensor], *live: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.pull = pull
        return tuple(value.view_as(value) for value in values)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():  # `once_differentiable` would let `autograd.grad` leave the second derivative out
            raise RuntimeError("the response of a level by this method cannot be differentiated twice")
        with torch.enable_grad():
            return (None, None, *ctx.pull(list(cotangents)))
