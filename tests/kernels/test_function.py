"""What gradients are asked for, and the short way to call functions, under every transform."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from nas.kernels.function import asked, call

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own

seen: list[list[bool]] = []


class _Product(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor, sign: float) -> Tensor:
        return sign * x * y

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        *factors, ctx.sign = inputs
        ctx.save_for_backward(*factors)
        ctx.save_for_forward(*factors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        seen.append(asked(ctx, 2))
        x, y = ctx.saved_tensors
        return ctx.sign * gradient * y, ctx.sign * gradient * x, None

    @staticmethod
    def jvp(ctx: Any, along_x: Tensor, along_y: Tensor, _: None) -> Tensor:
        x, y = ctx.saved_tensors
        result: Tensor = ctx.sign * (along_x * y + x * along_y)
        return result


product: Callable[..., Tensor] = partial(call, _Product)


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


@pytest.mark.parametrize("of", [lambda x: x, lambda x: x * 2], ids=["leaves", "within a graph"])
def test_only_what_the_pass_asks_for_is_asked(of: Callable[[Tensor], Tensor]) -> None:
    x, y = (torch.ones(2, requires_grad=True) for _ in range(2))
    out = product(of(x), of(y), 1.0).sum()
    torch.autograd.grad(out, x, retain_graph=True)
    torch.autograd.grad(out, y, retain_graph=True)
    torch.autograd.grad(out, (x, y), retain_graph=True)
    out.backward()
    assert seen == [[True, False], [False, True], [True, True], [True, True]]


def test_a_constant_is_not_asked() -> None:
    x = torch.ones(2, requires_grad=True)
    product(x, torch.ones(2), 1.0).sum().backward()
    assert seen == [[True, False]]


def test_in_transforms_too() -> None:
    x, y = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])

    def total(x: Tensor, y: Tensor) -> Tensor:
        return product(x, y, -1.0).sum()

    torch.testing.assert_close(torch.func.grad(total)(x, y), -y)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(total, 1))(x[:, None], y[:, None]), -x[:, None])
    torch.testing.assert_close(torch.func.jvp(total, (x, y), (y, x))[1], -(y @ y + x @ x))
    assert seen == [[True, False], [False, True]]


def test_tangents_pass_where_no_gradient_is_recorded() -> None:
    with torch.no_grad(), forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.tensor(2.0), torch.tensor(1.0))
        tangent = forward_ad.unpack_dual(product(dual, torch.tensor(5.0), 1.0)).tangent
    assert tangent == 5.0


def test_without_a_gradient_nothing_is_recorded() -> None:
    x = torch.ones(2, requires_grad=True)
    with torch.no_grad():
        assert not product(x, x, 1.0).requires_grad


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch's own, where it traces functions
def test_what_is_compiled_around_it_computes_the_same() -> None:
    x = torch.ones(2, requires_grad=True)
    compiled = torch.compile(lambda x: product(x + 1, x, 1.0).sum(), backend="eager")
    (gradient,) = torch.autograd.grad(compiled(x), x)
    assert gradient.tolist() == [3, 3]
