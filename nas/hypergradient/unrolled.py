"""Unrolled optimization: the level responds by steps of its own optimizer, and all of them are differentiated.

Liu et al., DARTS, ICLR 2019, eq. 6-7 for one step; Franceschi et al., ICML 2017, alg. 1 (reverse mode) for more.
"""

from __future__ import annotations

from typing import Literal, TypeGuard

import torch
from torch import Tensor

from nas.hypergradient.attach import asked, attach_pullback
from nas.hypergradient.response import Loss, Parameters, Step, constants, differentiate, leaves
from nas.hypergradient.virtual_step import State, VirtualSteps
from nas.kernels.second_order import twice_differentiable
from nas.registry import Count


class Unrolled:
    """`w' = w - xi f_w(a, w)`, hence `F_a(a, w') - xi f_aw F_w'(a, w')`; exact, by differentiating through the steps.

    With one step and SGD this is the second-order DARTS gradient, whose Hessian is that of the lower (training) loss.
    The graph of every step stays in memory until the gradient is computed, unless it is recomputed.

    Args:
        steps: number of optimizer steps.
        memory: `keep` the graphs of all steps, or `recompute` them one by one in the backward pass, from the parameters
            and the optimizer's state before each step. `recompute` gives the same result in the memory of one step, for
            one more forward and backward pass a step.

    References:
        Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, eq. 6-7 (one step).
        Franceschi et al., Forward and Reverse Gradient-Based Hyperparameter Optimization, ICML 2017, alg. 1.
    """

    unrolls = True

    def __init__(self, steps: Count = 1, memory: Literal["keep", "recompute"] = "keep") -> None:
        self.steps = steps
        self.memory = memory

    def __call__(self, loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
        if self.memory == "recompute" and isinstance(step, VirtualSteps):
            return self._recomputed(loss, own, others, step)
        current = leaves(own)
        for i in range(self.steps):
            with twice_differentiable():
                value = loss.after(i)(current, others)
            gradients = differentiate(value, list(current.values()), create_graph=True)
            current = step(current, dict(zip(current, gradients, strict=True)))
        return current

    def _recomputed(self, loss: Loss, own: Parameters, others: Parameters, step: VirtualSteps) -> Parameters:
        current, points = own, list[tuple[Parameters, dict[str, State], float | None]]()
        for i in range(self.steps):
            points.append((current, step.state, step.next_rate()))
            point = leaves(current)
            gradients = loss.after(i).gradient(point, constants(others), list(point.values()))
            with torch.no_grad():
                descended = dict(zip(current, gradients, strict=True))
                current, step.state = step.at(points[-1][2], current, descended, step.state)

        def pull(v: list[Tensor], fixed: Parameters) -> list[Tensor]:
            above = asked(fixed)
            total, to_state = [torch.zeros_like(tensor) for tensor in above], list[Tensor]()
            for i, (start, state, rate) in reversed(list(enumerate(points))):
                before, remembered = leaves(start), {name: _with_leaves(each) for name, each in state.items()}
                with twice_differentiable():
                    value = loss.after(i)(before, fixed)
                gradients = differentiate(value, list(before.values()), create_graph=True)
                after, later = step.at(rate, before, dict(zip(before, gradients, strict=True)), remembered)
                ends = [*after.values(), *_tensors(later)][: len(v) + len(to_state)]  # nothing reads the last state
                begins = [*before.values(), *_tensors(remembered)]
                found = differentiate(ends, [*begins, *above], [*v, *to_state])
                v, to_state = found[: len(before)], found[len(before) : len(begins)]
                total = [a + b for a, b in zip(total, found[len(begins) :], strict=True)]
            return total

        return attach_pullback(current, others, pull)


def _with_leaves(state: State) -> State:
    """The state of one parameter with leaves in place of its tensors with values."""
    return {key: value.detach().requires_grad_() if _differentiable(value) else value for key, value in state.items()}


def _tensors(states: dict[str, State]) -> list[Tensor]:
    return [value for state in states.values() for value in state.values() if _differentiable(value)]


def _differentiable(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.is_floating_point()
