"""Quadratic two-level problems with random Hessians and closed forms, in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nas.hypergradient.methods import create_response
from nas.hypergradient.response import Loss, Parameters, Response, Step
from nas.registry import kind

METHODS = list(kind("hypergradient").names())


def covering(name: str, **arguments: Any) -> dict[str, Any]:
    """The entry of a hypergradient method in a configuration, with a damping that covers the Hessian of any toy."""
    damping = {"damping": 100.0} if name in ("implicit", "conjugate_gradient") else {}
    return {"name": name, **damping, **arguments}


def response(name: str, **arguments: Any) -> Response:
    """The hypergradient method `name`."""
    return create_response({"name": name, **arguments}, "hypergradient")


class Quadratic:
    """f(a, w) = w'Hw / 2 - w'Ba with w* = H^-1 B a, F(a, w) = |w - c|^2 / 2 + d'a; w is split over two tensors."""

    def __init__(self, seed: int, condition: float = 50.0, size: int = 6, arch: int = 3) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.size = size
        self.rotation, _ = torch.linalg.qr(self.normal(generator, size, size))
        self.eigenvalues = torch.logspace(0, torch.tensor(condition).log10().item(), size, dtype=torch.float64) / 10
        self.h = self.rotation @ self.eigenvalues.diag() @ self.rotation.T
        self.b = self.normal(generator, size, arch)
        self.c = self.normal(generator, size)
        self.d = self.normal(generator, arch)
        self.a = self.normal(generator, arch).requires_grad_()
        self.w = self.normal(generator, size)

    @staticmethod
    def normal(generator: torch.Generator, *shape: int) -> Tensor:
        drawn: Tensor = torch.randn(shape, generator=generator, dtype=torch.float64)
        return drawn

    def optimum(self) -> Tensor:
        optimum: Tensor = torch.linalg.solve(self.h, self.b @ self.a).detach()
        return optimum

    def named(self, w: Tensor) -> Parameters:
        return {"first": w[:4].view(2, 2), "second": w[4:]}

    @staticmethod
    def joined(current: Parameters) -> Tensor:
        return torch.cat([value.flatten() for value in current.values()])

    @property
    def loss(self) -> Loss:
        return Loss([self.lower])

    @property
    def others(self) -> Parameters:
        return {"a": self.a}

    def lower(self, own: Parameters, others: Parameters) -> Tensor:
        w = self.joined(own)
        loss: Tensor = w @ self.h @ w / 2 - w @ self.b @ others["a"]
        return loss

    def upper(self, current: Parameters) -> Tensor:
        loss: Tensor = (self.joined(current) - self.c).square().sum() / 2 + self.d @ self.a
        return loss

    def hypergradient(self, method: Response, w: Tensor | None = None, step: Step | None = None) -> Tensor:
        """The gradient of the upper loss through the response of `method` at `w`."""
        answer = method(self.loss, self.named(self.w if w is None else w), self.others, step or descent(0.1))
        return torch.autograd.grad(self.upper(answer), self.a)[0]

    def exact(self, w: Tensor, damping: float = 0.0) -> Tensor:
        """The implicit hypergradient at `w`: at the optimum that of the solved problem."""
        damped = self.h + damping * torch.eye(self.size, dtype=torch.float64)
        exact: Tensor = self.d + self.b.T @ torch.linalg.solve(damped, w - self.c)
        return exact

    def error(self, w: Tensor, count: int, step_size: float) -> Tensor:
        """What is wrong after `count` terms of the Neumann series at `w`: `1 - s eigenvalue` is left by each term."""
        left = (1 - step_size * self.eigenvalues) ** count / self.eigenvalues
        error: Tensor = -self.b.T @ self.rotation @ (left * (self.rotation.T @ (w - self.c)))
        return error


class Scalars(nn.Module):
    """Two levels of one number each: `w` with the loss (w - a)^2 / 2, and `a` with the loss (w + 1)^2 / 2 + 0 a.

    A response by the loss of the second level would be 0: `a` is not in it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
        self.a = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    @staticmethod
    def lower(net: Any, batch: Any) -> Tensor:
        loss: Tensor = (net.w - net.a).square() / 2
        return loss

    @staticmethod
    def upper(net: Any, batch: Any) -> Tensor:
        loss: Tensor = (net.w + 1).square() / 2 + 0 * net.a
        return loss


CLOSED_FORMS: list[tuple[dict[str, Any], float]] = [
    ({"name": "first_order"}, 0.0),
    ({"name": "implicit", "damping": 0}, 3.0),
    ({"name": "unrolled"}, 0.1 * (1.85 + 1)),  # w' = 2 - 0.1 (2 - 0.5)
    ({"name": "unrolled", "steps": 2}, (1 - 0.9**2) * (1.715 + 1)),
    ({"name": "truncated", "steps": 2}, 0.1 * (1.715 + 1)),
    ({"name": "finite_difference"}, 0.1 * (1.85 + 1)),
    ({"name": "gauss_newton"}, 3.0),
    ({"name": "neumann", "terms": 2, "step_size": 0.1}, (1 - 0.9**2) * 3),
    ({"name": "conjugate_gradient", "damping": 0.5}, 2.0),
]
"""The hypergradient of `a` by methods that respond to `w` with SGD steps of rate 0.1."""


def descent(rate: float) -> Step:
    """A step of plain gradient descent."""
    return lambda own, gradients: {name: value - rate * gradients[name] for name, value in own.items()}
