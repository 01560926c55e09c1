"""Optimizers as configurations name them.

An optimizer is a function of parameters and keyword arguments, `lr` among them, that returns a `torch.optim.Optimizer`.
A hypergradient that unrolls it needs its virtual step, which `nas.hypergradient.virtual_step` has for the optimizers
below. The class of any other optimizer brings its own: a static method `virtual_step`.

Example:
    >>> @nas.register("optimizer", "sign")
    ... class Sign(torch.optim.Optimizer):
    ...     def __init__(self, parameters, *, lr: Positive = 1e-4):
    ...         super().__init__(parameters, {"lr": lr})
    ...     def step(self, closure=None):
    ...         for group in self.param_groups:
    ...             for p in group["params"]:
    ...                 if p.grad is not None:
    ...                     p.data.sub_(group["lr"] * p.grad.sign())
    ...     @staticmethod
    ...     def virtual_step(parameter, gradient, state, group):
    ...         return parameter - group["lr"] * gradient.sign(), state
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from nas.registry import NonNegative, Rate

Parameters = Iterable[nn.Parameter]


def sgd(
    parameters: Parameters,
    *,
    lr: NonNegative,
    momentum: Rate = 0.0,
    weight_decay: NonNegative = 0.0,
    nesterov: bool = False,
) -> torch.optim.SGD:
    """Stochastic gradient descent; `nesterov` needs a momentum above 0."""
    return torch.optim.SGD(parameters, lr, momentum, weight_decay=weight_decay, nesterov=nesterov)


def adam(
    parameters: Parameters,
    *,
    lr: NonNegative,
    betas: tuple[Rate, Rate] = (0.9, 0.999),
    weight_decay: NonNegative = 0.0,
    decoupled: bool = True,
) -> torch.optim.Adam | torch.optim.AdamW:
    """Adam (Kingma and Ba, ICLR 2015, alg. 1).

    Its steps do not depend on the scale of the loss, so weight decay is `decoupled` by default: it shrinks the
    parameters by `lr * weight_decay`, as `adamw` does. With `decoupled: false` it is added to the gradient, as in
    DARTS; if the gradient is smaller than `weight_decay` times the parameters, it then decides their course.
    """
    if weight_decay and decoupled:
        return torch.optim.AdamW(parameters, lr, betas, weight_decay=weight_decay)
    return torch.optim.Adam(parameters, lr, betas, weight_decay=weight_decay)


def adamw(
    parameters: Parameters,
    *,
    lr: NonNegative,
    betas: tuple[Rate, Rate] = (0.9, 0.999),
    weight_decay: NonNegative = 1e-2,
) -> torch.optim.AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019, alg. 2)."""
    return torch.optim.AdamW(parameters, lr, betas, weight_decay=weight_decay)
