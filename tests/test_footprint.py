from __future__ import annotations

import time

import torch

from nas.footprint import footprint


def test_flops_of_forward_and_backward() -> None:
    w = torch.randn(7, 5, requires_grad=True)
    x = torch.randn(3, 7)
    taken = footprint(lambda: torch.autograd.grad((x @ w).sum(), w))
    assert taken.flops == 2 * (2 * 3 * 7 * 5)  # the product, and the gradient of the weights alone


def test_memory_is_that_of_tensors_alive_at_the_same_time() -> None:
    x = torch.zeros(1000)

    def chain() -> None:
        y = x + 1
        for _ in range(5):
            y = y + 1  # the last one and the next

    def kept() -> None:
        made = [x + 1 for _ in range(6)]
        del made

    assert footprint(chain, [x]).memory == 2 * 4000
    assert footprint(kept, [x]).memory == 6 * 4000


def test_views_and_what_was_there_take_nothing() -> None:
    x = torch.zeros(10, 100)
    assert footprint(lambda: (x.view(-1), x.T, x[2:], x.add_(1)), [x]).memory == 0


def test_the_backward_pass_is_watched_too() -> None:
    x = torch.zeros(1000, requires_grad=True)
    forward = footprint(lambda: x.sin().sum(), [x]).memory
    backward = footprint(lambda: torch.autograd.grad(x.sin().sum(), x), [x]).memory
    assert backward >= forward + 4000


def test_works_where_modules_run_on_leaves_within_a_backward_pass() -> None:
    module = torch.nn.Linear(3, 3)

    class Nested(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, *cotangents: torch.Tensor) -> torch.Tensor:
            with torch.enable_grad():
                leaf = torch.ones(3, requires_grad=True)
                return torch.autograd.grad(module(leaf).sum(), leaf)[0]

    x = torch.zeros(3, requires_grad=True)
    applied = lambda: torch.autograd.grad(Nested.apply(x).sum(), x)  # type: ignore[no-untyped-call]  # noqa: E731
    assert footprint(applied, [x]).flops == 2 * 2 * 9


def test_time() -> None:
    assert 0.02 <= footprint(lambda: time.sleep(0.02)).seconds < 1
