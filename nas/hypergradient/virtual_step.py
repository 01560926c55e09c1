"""The next steps of an optimizer as differentiable functions, for hypergradients that unroll them.

An optimizer of another class brings its own rule: a static method `virtual_step` of the form `Rule`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from nas.errors import ConfigError
from nas.hypergradient.response import Parameters

State = dict[str, Any]
Rule = Callable[[Tensor, Tensor, State, State], tuple[Tensor, State]]
"""(parameter, gradient, the optimizer's state of the parameter, its group) to the next parameter and state.

Differentiable in parameter and gradient. It changes neither the state nor the group.
"""


def differentiable_step(
    optimizer: Optimizer,
    parameters: Mapping[str, nn.Parameter],
    clip: float | None = None,
    rates: Iterable[float] | None = None,
) -> VirtualSteps:
    """Return the next steps of an optimizer, from its current state, as a differentiable function.

    Neither the optimizer nor its parameters change. Each call of the returned function starts from the state after the
    call before. It raises `ConfigError` for an optimizer that has no rule: neither SGD, Adam nor AdamW of torch, nor of
    a class with a static method `virtual_step`, which is a `Rule`.

    Args:
        optimizer: the optimizer.
        parameters: its parameters by name.
        clip: largest norm of all gradients together; larger ones are scaled down.
        rates: learning rates of the steps; None for the optimizer's current one.

    Example:
        >>> class Lion(torch.optim.Optimizer):
        ...     @staticmethod
        ...     def virtual_step(parameter, gradient, state, group):
        ...         momentum = state.get("exp_avg", torch.zeros_like(parameter))
        ...         return parameter - group["lr"] * ..., {"exp_avg": ...}
    """
    return VirtualSteps(optimizer, parameters, clip, rates)


class VirtualSteps:
    """The steps that `differentiable_step` returns; `state` is the optimizer's state before the next step.

    Args:
        optimizer: the optimizer.
        parameters: its parameters by name.
        clip: largest norm of all gradients together.
        rates: learning rates of the steps; None for the optimizer's current one.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: Mapping[str, nn.Parameter],
        clip: float | None,
        rates: Iterable[float] | None,
    ) -> None:
        ours: State = {}
        if isinstance(optimizer, AdamW):
            ours["decoupled_weight_decay"] = True  # torch 2.6 does not have this field
        by_id = {id(p): {**group, **ours} for group in optimizer.param_groups for p in group["params"]}
        self.state: dict[str, State] = {name: dict(optimizer.state.get(p, {})) for name, p in parameters.items()}
        self._groups = {name: by_id[id(p)] for name, p in parameters.items()}
        self._optimizer, self._clip = optimizer, clip
        self._rates = None if rates is None else iter(rates)

    def next_rate(self) -> float | None:
        """Return the learning rate of the next step, which then counts as taken; None for the optimizer's own."""
        return None if self._rates is None else next(self._rates)

    def __call__(self, current: Parameters, gradients: Parameters) -> Parameters:
        """Take the next step."""
        following, self.state = self.at(self.next_rate(), current, gradients, self.state)
        return following

    def at(
        self, rate: float | None, current: Parameters, gradients: Parameters, state: Mapping[str, State]
    ) -> tuple[Parameters, dict[str, State]]:
        """Return the parameters and the state after a step from any state; nothing is remembered."""
        rule = rule_of(self._optimizer, "virtual step")
        changed: State = {} if rate is None else {"lr": rate}
        if self._clip is not None:
            gradients = _clipped(gradients, self._clip)
        taken = {
            name: rule(value, gradients[name], state[name], {**self._groups[name], **changed})
            for name, value in current.items()
        }
        return {name: value for name, (value, _) in taken.items()}, {name: after for name, (_, after) in taken.items()}


def rule_of(optimizer: Optimizer, where: str) -> Rule:
    """Return the rule of an optimizer's steps; raises `ConfigError`, which begins with `where`, if it has none."""
    own: Rule | None = getattr(optimizer, "virtual_step", None)
    if own is not None:
        return own
    rules: dict[type, Rule] = {SGD: _sgd, Adam: _adam, AdamW: _adam}
    variants = [flag for flag in ("amsgrad", "maximize") if any(group.get(flag) for group in optimizer.param_groups)]
    if type(optimizer) not in rules or variants:
        found = " with ".join([type(optimizer).__name__, *variants])
        raise ConfigError(
            f"{where}: the optimizer {found} must have a virtual step, got none. Use SGD, Adam or AdamW, give its class"
            " a static method 'virtual_step', or use a hypergradient method that takes no steps, such as implicit"
        )
    return rules[type(optimizer)]


def _sgd(p: Tensor, g: Tensor, state: State, group: State) -> tuple[Tensor, State]:
    if group["weight_decay"]:
        g = torch.add(g, p, alpha=group["weight_decay"])
    if group["momentum"]:
        buffer = state.get("momentum_buffer")
        momentum = g if buffer is None else torch.add(group["momentum"] * buffer, g, alpha=1 - group["dampening"])
        state = {"momentum_buffer": momentum}
        g = torch.add(g, momentum, alpha=group["momentum"]) if group["nesterov"] else momentum
    return torch.add(p, g, alpha=-group["lr"]), state


def _adam(p: Tensor, g: Tensor, state: State, group: State) -> tuple[Tensor, State]:
    beta1, beta2 = group["betas"]
    decay = group["weight_decay"]
    if decay and group.get("decoupled_weight_decay"):
        p = (1 - group["lr"] * decay) * p
    elif decay:
        g = torch.add(g, p, alpha=decay)
    count = int(state.get("step", 0)) + 1
    zero = torch.zeros_like(p)
    first = beta1 * state.get("exp_avg", zero) + (1 - beta1) * g
    second = beta2 * state.get("exp_avg_sq", zero) + (1 - beta2) * g * g
    denominator = _root(second) / (1 - beta2**count) ** 0.5 + group["eps"]
    state = {"step": count, "exp_avg": first, "exp_avg_sq": second}
    return p - group["lr"] / (1 - beta1**count) * first / denominator, state


def _root(x: Tensor) -> Tensor:
    """The square root, with derivative 0 at 0, at which the derivative of `sqrt` is infinite."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)


def _clipped(gradients: Parameters, limit: float) -> Parameters:
    """Gradients scaled to a total norm of at most `limit`, as `torch.nn.utils.clip_grad_norm_` does."""
    norm = _root(torch.stack([g.square().sum() for g in gradients.values()]).sum())
    scale = (limit / (norm + 1e-6)).clamp(max=1.0)
    return {name: g * scale for name, g in gradients.items()}
