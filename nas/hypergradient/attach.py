"""Attach a derivative to a level's parameters, computed only once the gradient of the loss above is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nas.hypergradient.response import Parameters, leaves

Pullback = Callable[[list[Tensor], Parameters], list[Tensor]]
"""(cotangents `v` of some values, the other levels' parameters) to the products `v^T d values / d others`, for those of
the others that require a gradient, in their order. These are leaves."""


def attach_pullback(values: Parameters, others: Parameters, pullback: Pullback) -> Parameters:
    """Return `values` as a function of those of `others` that require a gradient, with `pullback` as its derivative.

    `pullback` runs once, in the backward pass of the loss above, after that loss's own graph is freed.

    Raises:
        RuntimeError: in a backward pass that differentiates the result twice.
    """
    live = {name: value for name, value in others.items() if value.requires_grad}
    if not live:
        return values

    def pull(cotangents: list[Tensor]) -> list[Tensor]:
        return pullback(cotangents, {**others, **leaves(live)})

    attached = _Attached.apply(pull, list(values.values()), *live.values())  # type: ignore[no-untyped-call]
    return dict(zip(values, attached, strict=True))


def asked(others: Parameters) -> list[Tensor]:
    """Return those of the others whose gradient a pullback returns."""
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
        if (
            torch.is_grad_enabled()
        ):  # with `once_differentiable`, `autograd.grad` would silently leave the second derivative out
            raise RuntimeError("the response of a level by this method cannot be differentiated twice")
        with torch.enable_grad():
            return (None, None, *ctx.pull(list(cotangents)))
