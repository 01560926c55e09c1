"""Unrolled responses against closed forms and central differences of the whole inner steps, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import SGD, Adam, AdamW, Optimizer

from nas.hypergradient import Loss, Parameters, response
from nas.hypergradient.step import virtual_step

H = torch.tensor([[2.0, 0.3, 0.0], [0.3, 1.0, -0.2], [0.0, -0.2, 0.5]], dtype=torch.float64)
B = torch.tensor([[1.0, -0.5], [0.4, 0.8], [-0.3, 0.6]], dtype=torch.float64)
C = torch.tensor([0.2, -1.0, 0.7], dtype=torch.float64)
D = torch.tensor([0.1, -0.2], dtype=torch.float64)
POINT = torch.tensor([0.7, -0.4], dtype=torch.float64)


def hypergradient(w: Tensor, steps: int, rate: float) -> Tensor:
    """For f = w'Hw / 2 - w'Ba and F = |w - C|^2 / 2 + D'a, through SGD steps from w."""
    a = POINT.clone().requires_grad_()

    def lower(own: Parameters, others: Parameters) -> Tensor:
        return own["w"] @ H @ own["w"] / 2 - own["w"] @ B @ others["a"]

    parameter = nn.Parameter(w.clone())
    step = virtual_step(SGD([parameter], lr=rate), {"w": parameter})
    answer = response("unrolled", steps=steps)(Loss([lower]), {"w": w}, {"a": a}, step)["w"]
    upper = (answer - C).square().sum() / 2 + D @ a
    return torch.autograd.grad(upper, a)[0]


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_equals_the_closed_form_of_sgd_steps(steps: int) -> None:
    rate = 0.3
    start = torch.tensor([1.0, 0.5, -0.5], dtype=torch.float64)
    shrink = torch.eye(3, dtype=torch.float64) - rate * H
    # w' = shrink w + rate B a, so w_K depends on a through the sum of the powers of `shrink`.
    power = sum((torch.linalg.matrix_power(shrink, i) for i in range(steps)), torch.zeros_like(H))
    last = torch.linalg.matrix_power(shrink, steps) @ start + rate * power @ B @ POINT
    expected = D + (rate * power @ B).T @ (last - C)
    torch.testing.assert_close(hypergradient(start, steps, rate), expected, rtol=1e-12, atol=1e-12)


def test_converges_to_the_implicit_value_at_the_rate_of_the_slowest_direction() -> None:
    rate = 0.3
    optimum = torch.linalg.solve(H, B @ POINT)
    exact = D + B.T @ torch.linalg.solve(H, optimum - C)
    errors = [(hypergradient(optimum, steps, rate) - exact).norm().item() for steps in (60, 80, 100)]
    slowest = 1 - rate * torch.linalg.eigvalsh(H).min().item()
    assert errors[1] / errors[0] == pytest.approx(slowest**20, rel=1e-3)
    assert errors[2] / errors[1] == pytest.approx(slowest**20, rel=1e-3)


class Net(nn.Module):
    """Two mixed smooth operations, batch norm in train mode, and dropout by a fixed mask."""

    def __init__(self) -> None:
        super().__init__()
        self.arch = nn.Parameter(torch.zeros(2))
        self.inputs = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)
        self.outputs = nn.Linear(5, 2)
        self.mask: Tensor
        self.register_buffer("mask", torch.tensor([1.25, 1.25, 0.0, 1.25, 1.25]))

    def forward(self, x: Tensor) -> Tensor:
        mixing = self.arch.softmax(-1)
        hidden = self.norm(self.inputs(x))
        hidden = mixing[0] * nn.functional.silu(hidden) + mixing[1] * hidden.tanh()
        output: Tensor = self.outputs(hidden * self.mask)
        return output


def net_and_data() -> tuple[Net, dict[str, tuple[Tensor, Tensor]]]:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = Net().double()
        nn.init.normal_(net.arch)
        data = {split: (torch.randn(6, 4).double(), torch.randn(6, 2).double()) for split in ("train", "val")}
    return net, data


def lower(net: nn.Module, values: Parameters, data: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
    x, y = data["train"]
    return nn.functional.mse_loss(functional_call(net, values, (x,)), y)


def upper(net: nn.Module, values: Parameters, data: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
    """Another loss than the lower one, on other data."""
    x, y = data["val"]
    return nn.functional.smooth_l1_loss(functional_call(net, values, (x,)), y) + 0.1 * values["arch"].square().sum()


BUILDS: dict[str, Callable[..., Optimizer]] = {
    "sgd": partial(SGD, lr=0.5, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adam": partial(Adam, lr=0.05, weight_decay=0.1),
    "adamw": partial(AdamW, lr=0.05),
}


@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("warm", [0, 3])
@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_equals_central_differences_of_what_the_optimizer_really_does(
    build: Callable[..., Optimizer], warm: int, steps: int, clip: float | None
) -> None:
    net, data = net_and_data()
    optimizer = build([p for name, p in net.named_parameters() if name != "arch"])
    train(net, optimizer, data, warm, clip)

    owned = {name: p for name, p in net.named_parameters() if name != "arch"}
    values = {name: p.detach() for name, p in owned.items()}
    arch = net.arch.detach().clone().requires_grad_()
    loss = Loss([lambda own, others: lower(net, {**own, **others}, data)])
    step = virtual_step(optimizer, owned, clip)
    answer = response("unrolled", steps=steps)(loss, values, {"arch": arch}, step)
    (found,) = torch.autograd.grad(upper(net, {**answer, "arch": arch}, data), arch)

    def after(shift: Tensor) -> float:
        """The upper loss once a copy of the real optimizer has taken its steps at shifted arch parameters."""
        both = copy.deepcopy((net, optimizer))
        with torch.no_grad():
            both[0].arch.add_(shift)
        train(*both, data, steps, clip)
        return upper(both[0], dict(both[0].named_parameters()), data).item()

    h = 1e-5
    units = torch.eye(2, dtype=torch.float64)
    expected = torch.stack([torch.tensor((after(h * u) - after(-h * u)) / (2 * h), dtype=found.dtype) for u in units])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)
    first_order = torch.autograd.grad(upper(net, {**values, "arch": arch}, data), arch)[0]
    assert not torch.allclose(found, first_order, rtol=1e-2)  # else the test would say nothing about the response


def train(
    net: Net, optimizer: Optimizer, data: dict[str, tuple[Tensor, Tensor]], steps: int, clip: float | None
) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(lower(net, dict(net.named_parameters()), data))
        net.arch.grad = None
        if clip is not None:
            nn.utils.clip_grad_norm_(net.parameters(), clip)
        optimizer.step()


def test_stays_finite_where_gradients_are_zero() -> None:
    # A dead ReLU: the lower gradient of its weights is exactly zero, at Adam's first steps.
    a = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    w = {"dead": nn.Parameter(torch.tensor([-1.0, 1.0], dtype=torch.float64))}

    def loss(own: Parameters, others: Parameters) -> Tensor:
        return (own["dead"].relu() * others["a"]).square().sum()

    answer = response("unrolled", steps=4)(
        Loss([loss]), {"dead": w["dead"].detach()}, {"a": a}, virtual_step(Adam(w.values(), lr=0.1), w, clip=0.5)
    )
    (found,) = torch.autograd.grad(answer["dead"].sum(), a)
    assert found.isfinite()
    assert answer["dead"].isfinite().all()


def test_the_given_values_do_not_change() -> None:
    w = torch.ones(3, dtype=torch.float64)
    hypergradient(w, 2, 0.3)
    assert torch.equal(w, torch.ones(3, dtype=torch.float64))
    assert not w.requires_grad
