"""The virtual step against the optimizers of torch, and its derivative against central differences."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from nas.errors import ConfigError
from nas.hypergradient.response import Parameters
from nas.hypergradient.virtual_step import differentiable_step

Build = Callable[[Iterable[nn.Parameter]], Optimizer]


class Momentum(Optimizer):
    """An optimizer of others, which brings its virtual step."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                moved, self.state[p] = self.virtual_step(p, p.grad, self.state[p], group)
                p.copy_(moved)

    @staticmethod
    def virtual_step(
        parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        momentum = 0.5 * state.get("momentum", torch.zeros_like(parameter)) + gradient
        return parameter - group["lr"] * momentum, {"momentum": momentum}


OPTIMIZERS: dict[str, Build] = {
    "own": partial(Momentum, lr=0.2),
    "sgd": partial(SGD, lr=0.3),
    "sgd decay": partial(SGD, lr=0.3, weight_decay=0.2),
    "sgd momentum": partial(SGD, lr=0.3, momentum=0.9, weight_decay=0.2),
    "sgd dampening": partial(SGD, lr=0.3, momentum=0.9, dampening=0.4),
    "sgd nesterov": partial(SGD, lr=0.3, momentum=0.9, nesterov=True, weight_decay=0.2),
    "adam": partial(Adam, lr=0.1),
    "adam decay": partial(Adam, lr=0.1, betas=(0.5, 0.8), weight_decay=0.3),
    "adamw": partial(AdamW, lr=0.1, betas=(0.5, 0.8), weight_decay=0.3),
}
every_optimizer = pytest.mark.parametrize("build", OPTIMIZERS.values(), ids=OPTIMIZERS)


def parameters() -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        "matrix": nn.Parameter(torch.randn(2, 3, dtype=torch.float64, generator=generator)),
        "vector": nn.Parameter(torch.randn(4, dtype=torch.float64, generator=generator)),
    }


def gradients(number: int) -> Parameters:
    generator = torch.Generator().manual_seed(100 + number)
    return {name: torch.randn(p.shape, dtype=p.dtype, generator=generator) for name, p in parameters().items()}


def take(optimizer: Optimizer, owned: dict[str, nn.Parameter], number: int, clip: float | None) -> None:
    """The optimizer's own step number `number`."""
    for name, gradient in gradients(number).items():
        owned[name].grad = gradient.clone()
    if clip is not None:
        nn.utils.clip_grad_norm_(owned.values(), clip)
    optimizer.step()


def warm(build: Build, steps: int, clip: float | None = None) -> tuple[dict[str, nn.Parameter], Optimizer]:
    owned = parameters()
    optimizer = build(owned.values())
    for number in range(steps):
        take(optimizer, owned, number, clip)
    return owned, optimizer


@pytest.mark.parametrize("clip", [None, 0.5, 100.0])
@pytest.mark.parametrize("before", [0, 3], ids=["fresh", "warm"])
@every_optimizer
def test_equals_what_torch_does_over_several_steps(build: Build, before: int, clip: float | None) -> None:
    owned, optimizer = warm(build, before, clip)
    step = differentiable_step(optimizer, owned, clip)
    current = {name: p.detach().clone() for name, p in owned.items()}
    for number in range(before, before + 3):
        current = step(current, gradients(number))
        take(optimizer, owned, number, clip)
        for name, p in owned.items():
            torch.testing.assert_close(current[name], p.detach(), rtol=0, atol=1e-12)


@every_optimizer
def test_changes_neither_the_optimizer_nor_its_parameters(build: Build) -> None:
    owned, optimizer = warm(build, 2)
    before = copy.deepcopy(optimizer.state_dict()), [p.detach().clone() for p in owned.values()]
    step = differentiable_step(optimizer, owned, clip=0.5, rates=[7.0, 5.0])
    current = step(dict(owned), gradients(0))
    step(current, gradients(1))
    assert_same(optimizer.state_dict(), before[0])
    assert_same([p.detach() for p in owned.values()], before[1])


def assert_same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@every_optimizer
def test_takes_a_learning_rate_that_the_optimizer_does_not_have_yet(build: Build) -> None:
    owned, optimizer = warm(build, 2)
    values = {name: p.detach().clone() for name, p in owned.items()}
    early = differentiable_step(optimizer, owned, rates=[0.01])(values, gradients(2))
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    assert_same(early, differentiable_step(optimizer, owned)(values, gradients(2)))
    take(optimizer, owned, 2, None)
    torch.testing.assert_close(early, {name: p.detach() for name, p in owned.items()}, rtol=0, atol=1e-12)


def test_each_parameter_moves_by_the_rule_of_its_group() -> None:
    owned = parameters()
    optimizer = SGD([owned["vector"]], lr=0.25)
    optimizer.add_param_group({"params": [owned["matrix"]], "lr": 0.5})
    values = {name: p.detach().clone() for name, p in owned.items()}
    moved = differentiable_step(optimizer, owned)(values, gradients(0))
    torch.testing.assert_close(moved["matrix"], values["matrix"] - 0.5 * gradients(0)["matrix"])
    torch.testing.assert_close(moved["vector"], values["vector"] - 0.25 * gradients(0)["vector"])


def two_steps(build: Build, before: int, clip: float | None, point: Tensor) -> Tensor:
    """Two virtual steps of parameters and gradients that both depend on `point`."""
    owned, optimizer = warm(build, before)
    step = differentiable_step(optimizer, owned, clip)
    current = {name: p.detach() + 0.1 * point.sin().sum() for name, p in owned.items()}
    for number in range(2):
        slopes = {n: g * (1 + point.prod()) + 0.3 * current[n].tanh() for n, g in gradients(number).items()}
        current = step(current, slopes)
    return torch.cat([value.flatten() for value in current.values()])


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("before", [0, 3], ids=["fresh", "warm"])
@every_optimizer
def test_derivative_equals_central_differences(build: Build, before: int, clip: float | None) -> None:
    point = torch.tensor([0.7, -0.4], dtype=torch.float64)
    found = torch.func.jacrev(lambda x: two_steps(build, before, clip, x))(point)
    for i, unit in enumerate(torch.eye(2, dtype=torch.float64)):
        h = 1e-5
        difference = two_steps(build, before, clip, point + h * unit) - two_steps(build, before, clip, point - h * unit)
        torch.testing.assert_close(found[:, i], difference / (2 * h), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("clip", [None, 0.5])
@every_optimizer
def test_derivative_is_finite_where_a_gradient_is_zero(build: Build, clip: float | None) -> None:
    owned = parameters()
    step = differentiable_step(build(owned.values()), owned, clip)
    slopes = {name: torch.zeros_like(p).requires_grad_() for name, p in owned.items()}
    moved = step({name: p.detach() for name, p in owned.items()}, slopes)
    found = torch.autograd.grad([v.sum() for v in moved.values()], list(slopes.values()))
    assert all(g.isfinite().all() for g in found)


def test_derivative_of_adam_at_a_zero_gradient_is_that_of_its_formula() -> None:
    # A first step moves by lr g / (|g| + eps), whose derivative at 0 is lr / eps.
    p = nn.Parameter(torch.zeros((), dtype=torch.float64))
    g = torch.zeros((), dtype=torch.float64, requires_grad=True)
    moved = differentiable_step(Adam([p], lr=0.5, eps=1e-3), {"p": p})({"p": p.detach()}, {"p": g})["p"]
    assert torch.autograd.grad(moved, g)[0].item() == pytest.approx(-0.5 / 1e-3)


@pytest.mark.parametrize(
    ("build", "found"),
    [
        (torch.optim.RMSprop, "RMSprop"),
        (partial(Adam, amsgrad=True), "Adam with amsgrad"),
        (partial(SGD, lr=0.1, maximize=True), "SGD with maximize"),
    ],
)
def test_refuses_optimizers_without_a_rule(build: Build, found: str) -> None:
    owned = parameters()
    step = differentiable_step(build(owned.values()), owned)  # methods that take no step work with any optimizer
    with pytest.raises(ConfigError, match=rf"optimizer {found} .*'virtual_step'"):
        step(dict(owned), gradients(0))
