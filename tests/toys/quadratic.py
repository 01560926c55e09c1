"""Quadratic two-level problems with random Hessians and closed forms, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from nas.hypergradient import Loss, Parameters, Response, Step


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


def descent(rate: float) -> Step:
    """A step of plain gradient descent."""
    return lambda own, gradients: {name: value - rate * gradients[name] for name, value in own.items()}
