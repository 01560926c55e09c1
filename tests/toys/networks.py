"""A small smooth network with batch norm and a fixed dropout mask, in float64, and what optimizers really do to it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import SGD, Adam, AdamW, Optimizer

from nas.hypergradient.response import Loss, Parameters
from nas.hypergradient.virtual_step import differentiable_step
from quadratic import response

Data = dict[str, tuple[Tensor, Tensor]]
Build = Callable[..., Optimizer]


class Net(nn.Module):
    """Two mixed smooth operations, batch norm in train mode, and dropout by a fixed mask."""

    def __init__(self) -> None:
        super().__init__()
        self.arch = nn.Parameter(torch.zeros(2))
        self.inputs = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5, track_running_stats=False)
        self.outputs = nn.Linear(5, 2)
        self.mask: Tensor
        self.register_buffer("mask", torch.tensor([1.25, 1.25, 0.0, 1.25, 1.25]))

    def forward(self, x: Tensor) -> Tensor:
        mixing = self.arch.softmax(-1)
        hidden = self.norm(self.inputs(x))
        hidden = mixing[0] * nn.functional.silu(hidden) + mixing[1] * hidden.tanh()
        output: Tensor = self.outputs(hidden * self.mask)
        return output


def net_and_data() -> tuple[Net, Data]:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = Net().double()
        nn.init.normal_(net.arch)
        data = {split: (torch.randn(6, 4).double(), torch.randn(6, 2).double()) for split in ("train", "val")}
    return net, data


def lower(net: nn.Module, values: Parameters, data: Data) -> Tensor:
    x, y = data["train"]
    return nn.functional.mse_loss(functional_call(net, values, (x,)), y)


def upper(net: nn.Module, values: Parameters, data: Data) -> Tensor:
    """Another loss than the lower one, on other data."""
    x, y = data["val"]
    return nn.functional.smooth_l1_loss(functional_call(net, values, (x,)), y) + 0.1 * values["arch"].square().sum()


BUILDS: dict[str, Build] = {
    "sgd": partial(SGD, lr=0.5, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adam": partial(Adam, lr=0.05, weight_decay=0.1),
    "adamw": partial(AdamW, lr=0.05),
}


class Case:
    """The network, its arch parameters as a leaf, and an optimizer of the rest that has taken some steps."""

    def __init__(self, build: Build, *, warm: int = 0, clip: float | None = None) -> None:
        self.net, self.data = net_and_data()
        self.clip = clip
        self.owned = {name: p for name, p in self.net.named_parameters() if name != "arch"}
        self.optimizer = build(self.owned.values())
        self.train(self.net, self.optimizer, warm)
        self.own = {name: p.detach() for name, p in self.owned.items()}
        self.arch = self.net.arch.detach().clone().requires_grad_()

    @property
    def loss(self) -> Loss:
        return Loss([lambda own, others: lower(self.net, {**own, **others}, self.data)])

    @property
    def flat(self) -> Tensor:
        """The parameters of the lower level in one vector."""
        return torch.cat([value.flatten() for value in self.own.values()])

    def named(self, w: Tensor) -> Parameters:
        """The parts of such a vector, by name."""
        pieces = w.split([value.numel() for value in self.own.values()])
        return {name: piece.view_as(self.own[name]) for name, piece in zip(self.own, pieces, strict=True)}

    def upper(self, answer: Parameters) -> Tensor:
        return upper(self.net, {**answer, "arch": self.arch}, self.data)

    def hypergradient(self, name: str, **arguments: Any) -> Tensor:
        """The gradient of the upper loss through a response."""
        step = differentiable_step(self.optimizer, self.owned, self.clip)
        answer = response(name, **arguments)(self.loss, self.own, {"arch": self.arch}, step)
        return torch.autograd.grad(self.upper(answer), self.arch)[0]

    def central_differences(self, steps: int, before: int = 0) -> Tensor:
        """The same by central differences of what copies of network and optimizer really do in their next steps.

        The arch parameters are shifted after the first `before` steps.
        """
        h = 1e-5
        units = torch.eye(2, dtype=torch.float64)
        return torch.stack(
            [(self._after(h * u, steps, before) - self._after(-h * u, steps, before)) / (2 * h) for u in units]
        )

    def _after(self, shift: Tensor, steps: int, before: int) -> Tensor:
        net, optimizer = copy.deepcopy((self.net, self.optimizer))
        self.train(net, optimizer, before)
        with torch.no_grad():
            net.arch.add_(shift)
        self.train(net, optimizer, steps - before)
        return upper(net, dict(net.named_parameters()), self.data).detach()

    def train(self, net: Net, optimizer: Optimizer, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            torch.autograd.backward(lower(net, dict(net.named_parameters()), self.data))
            net.arch.grad = None
            if self.clip is not None:
                nn.utils.clip_grad_norm_(net.parameters(), self.clip)
            optimizer.step()
