"""Truncated back-propagation: of the steps taken, only the last are differentiated.

Shaban et al., Truncated Back-propagation for Bilevel Optimization, AISTATS 2019 (K-RMD); with `last` 1 this is T1-T2
(Luketina et al., Scalable Gradient-Based Tuning of Continuous Regularization Hyperparameters, ICML 2016).
"""

from __future__ import annotations

import operator

import torch

from nas.errors import ConfigError
from nas.hypergradient.protocol import Loss, Parameters, Step, constants, leaves
from nas.hypergradient.unrolled import Unrolled


class Truncated:
    """`F_a(a, w_K) + sum over the last steps k of d w_K / d w_k * d w_k / d a`: memory is that of the last steps.

    Args:
        steps: the number of optimizer steps to take.
        last: how many of them to differentiate through. Raises `ConfigError` unless 1 <= last <= steps.
    """

    def __init__(self, steps: int = 5, last: int = 1) -> None:
        self.steps = operator.index(steps)
        if not 1 <= operator.index(last) <= self.steps:
            raise ConfigError(
                f"hypergradient 'truncated': 'last' must be from 1 to the {steps} steps in all, got {last}"
            )
        self.unrolled = Unrolled(last)

    def __call__(self, loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
        current, before = own, self.steps - self.unrolled.steps
        for i in range(before):
            point = leaves(current)
            gradients = loss.after(i).gradient(point, constants(others), list(point.values()))
            with torch.no_grad():
                current = step(current, dict(zip(current, gradients, strict=True)))
        return self.unrolled(loss.after(before), current, others, step)
