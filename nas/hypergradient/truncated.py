"""Truncated back-propagation: only the last steps are differentiated (Shaban et al., AISTATS 2019, K-RMD).

With one last step this is T1-T2 (Luketina et al., ICML 2016).
"""

from __future__ import annotations

import torch

from nas.errors import ConfigError
from nas.hypergradient.response import Loss, Parameters, Step, constants, leaves
from nas.hypergradient.unrolled import Unrolled
from nas.registry import Count


class Truncated:
    """`F_a(a, w_K) + sum over the last steps k of d w_K / d w_k * d w_k / d a`: memory is that of the last steps.

    Args:
        steps: number of optimizer steps.
        last: number of last steps that are differentiated.

    Raises:
        ConfigError: `last` is more than `steps`.

    References:
        Shaban et al., Truncated Back-propagation for Bilevel Optimization, AISTATS 2019, sec. 3 (K-RMD).
        Luketina et al., Scalable Gradient-Based Tuning of Continuous Regularization Hyperparameters, ICML 2016 (T1-T2,
        `last` 1).
    """

    unrolls = True

    def __init__(self, steps: Count = 5, last: Count = 1) -> None:
        if last > steps:
            raise ConfigError(f"'last' must be at most the number of steps, {steps}, got {last}")
        self.steps = steps
        self.unrolled = Unrolled(last)

    def __call__(self, loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
        current, before = own, self.steps - self.unrolled.steps
        for i in range(before):
            point = leaves(current)
            gradients = loss.after(i).gradient(point, constants(others), list(point.values()))
            with torch.no_grad():
                current = step(current, dict(zip(current, gradients, strict=True)))
        return self.unrolled(loss.after(before), current, others, step)
