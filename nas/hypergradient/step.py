"""The step that an optimizer would really take, as a differentiable function: for unrolled hypergradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from nas.errors import ConfigError
from nas.hypergradient.protocol import Parameters, Step

State = dict[str, Any]
Rule = Callable[[Tensor, Tensor, State, State], tuple[Tensor, State]]
"""(parameter, gradient, state of the parameter, its group) to the next parameter and state."""


def virtual_step(
    optimizer: Optimizer,
    parameters: Mapping[str, nn.Parameter],
    clip: float | None = None,
    rates: Iterable[float] | None = None,
) -> Step:
    """The next steps of `optimizer` (SGD with momentum, Adam or AdamW, each with weight decay) from its present state.

    Neither the optimizer nor its parameters change. With `clip` the gradients are first scaled to at most that norm;
    `rates` are the learning rates of the steps, if these differ from the optimizer's present one. Several steps in a
    row each start from the state that the last one left. A step raises `ConfigError` for other optimizers.
    """
    ours: State = {}
    if isinstance(optimizer, AdamW):
        ours["decoupled_weight_decay"] = True  # torch 2.6 does not say so itself
    groups = {id(p): {**group, **ours} for group in optimizer.param_groups for p in group["params"]}
    state = {name: dict(optimizer.state.get(p, {})) for name, p in parameters.items()}
    coming = None if rates is None else iter(rates)

    def step(current: Parameters, gradients: Parameters) -> Parameters:
        rule = _rule(optimizer)
        rate: State = {} if coming is None else {"lr": next(coming)}
        if clip is not None:
            gradients = _clipped(gradients, clip)
        following = {}
        for name, value in current.items():
            group = groups[id(parameters[name])]
            following[name], state[name] = rule(value, gradients[name], state[name], {**group, **rate})
        return following

    return step


def _rule(optimizer: Optimizer) -> Rule:
    rules: dict[type, Rule] = {SGD: _sgd, Adam: _adam, AdamW: _adam}
    variants = [flag for flag in ("amsgrad", "maximize") if any(group.get(flag) for group in optimizer.param_groups)]
    if type(optimizer) not in rules or variants:
        found = " with ".join([type(optimizer).__name__, *variants])
        raise ConfigError(f"a differentiable step must be one of sgd, adam or adamw, got one of {found}")
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
    """The square root with derivative 0 at 0, where that of `sqrt` is infinite."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)


def _clipped(gradients: Parameters, limit: float) -> Parameters:
    """Gradients scaled to a total norm of at most `limit`, as `torch.nn.utils.clip_grad_norm_` does."""
    norm = _root(torch.stack([g.square().sum() for g in gradients.values()]).sum())
    scale = (limit / (norm + 1e-6)).clamp(max=1.0)
    return {name: g * scale for name, g in gradients.items()}
