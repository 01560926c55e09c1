"""What every optimizer must satisfy: a test class to inherit from.

>>> class TestSign(OptimizerTests):
...     optimizer = {"name": "sign", "lr": 0.01}
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nas.errors import ConfigError
from nas.hypergradient.virtual_step import differentiable_step, rule_of
from nas.testing.subject import Subject, made, reloaded

STEPS = 4


class OptimizerTests:
    """Conformance tests of an optimizer: subclass it in a test module, as `Test...`, and name the optimizer.

    It moves logits in float64, whose loss is a weighted sum of their softmax.
    """

    optimizer: ClassVar[Subject]
    """A name, a mapping of `name` and arguments, or a function of parameters."""

    def test_a_step_descends(self) -> None:
        logits, optimizer = self._made()
        before = logits.detach().clone()
        gradient = _descend(logits, optimizer)
        slope = float(gradient @ (logits.detach() - before))
        assert slope < 0, f"the first step must go down the gradient, got a slope of {slope:g}"

    def test_a_parameter_without_a_gradient_stays(self) -> None:
        logits, optimizer = self._made()
        before = logits.detach().clone()
        optimizer.step()
        assert torch.equal(before, logits), "a parameter whose `grad` is None must stay"

    def test_a_loaded_state_continues_the_course(self) -> None:
        whole, optimizer = self._made()
        for _ in range(STEPS):
            _descend(whole, optimizer)
        second, optimizer = self._made()
        for _ in range(STEPS):
            state = reloaded(optimizer.state_dict())
            second, optimizer = self._made(second.detach())
            optimizer.load_state_dict(state)
            _descend(second, optimizer)
        assert torch.equal(whole, second), (
            "a saved and loaded optimizer takes other steps; keep what it needs in `state`"
        )

    def test_the_virtual_step_equals_the_step(self) -> None:
        logits, optimizer = self._made()
        if not _unrolls(optimizer):
            return
        for number in range(STEPS):
            virtual = differentiable_step(optimizer, {"logits": logits})
            found = virtual({"logits": logits.detach().clone()}, {"logits": _gradient(logits)})["logits"]
            _descend(logits, optimizer)
            error = float((found - logits.detach()).abs().max())
            assert error < 1e-10, f"virtual_step differs from step {number + 1} by {error:g}"

    def test_the_virtual_step_is_differentiable(self) -> None:
        logits, optimizer = self._made()
        if not _unrolls(optimizer):
            return
        _descend(logits, optimizer)
        state = dict(optimizer.state.get(logits, {}))

        def step(parameter: Tensor, gradient: Tensor) -> Tensor:
            return rule_of(optimizer, "virtual step")(parameter, gradient, state, optimizer.param_groups[0])[0]

        point = [each.detach().clone().requires_grad_() for each in (logits, _gradient(logits))]
        assert torch.autograd.gradcheck(step, point, raise_exception=False), (
            "the derivatives of virtual_step differ from finite differences in float64"
        )

    def _made(self, start: Tensor | None = None) -> tuple[nn.Parameter, Optimizer]:
        """New logits, and their optimizer."""
        values = torch.tensor([0.3, -0.2, 0.9, -0.6], dtype=torch.double) if start is None else start.clone()
        logits = nn.Parameter(values)
        optimizer = made("optimizer", type(self).optimizer, [logits])
        assert isinstance(optimizer, Optimizer), f"an optimizer must be a torch.optim.Optimizer, got {optimizer!r}"
        return logits, optimizer


def _loss(logits: Tensor) -> Tensor:
    return logits.softmax(0) @ torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.double)


def _gradient(logits: Tensor) -> Tensor:
    return torch.autograd.grad(_loss(logits), logits)[0]


def _descend(logits: nn.Parameter, optimizer: Optimizer) -> Tensor:
    """Take a step; returns the gradient that it descended."""
    logits.grad = gradient = _gradient(logits)
    optimizer.step()
    return gradient.clone()


def _unrolls(optimizer: Optimizer) -> bool:
    """Whether it has a virtual step; without one, methods that unroll it are refused."""
    try:
        rule_of(optimizer, "virtual step")
    except ConfigError:
        return False
    return True
