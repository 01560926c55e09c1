"""Grouped convolutions against torch's own, up to third derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.hypergradient.twice import twice_differentiable

SHAPES: dict[str, dict[str, Any]] = {
    "depthwise": {"kernel_size": 3, "padding": 1, "groups": 4},
    "dilated, strided": {"kernel_size": 3, "stride": 2, "padding": 2, "dilation": 2, "groups": 4},
    "two groups, oblong": {"kernel_size": (3, 1), "stride": (1, 2), "padding": (1, 0), "groups": 2},
    "a multiplier": {"kernel_size": 3, "groups": 2, "bias": False},
    "plain": {"kernel_size": 3},
    "same": {"kernel_size": 3, "padding": "same", "groups": 4},
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def layer(shape: dict[str, Any]) -> tuple[nn.Conv2d, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Conv2d(4, 8 if shape.get("bias") is False else 4, **shape).double(), torch.randn(2, 4, 6, 5).double()


def applied(shape: dict[str, Any]) -> tuple[Callable[..., Tensor], list[Tensor]]:
    convolution, x = layer(shape)
    names = [name for name, _ in convolution.named_parameters()]

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        with twice_differentiable():
            output: Tensor = torch.func.functional_call(convolution, dict(zip(names, parameters, strict=True)), (x,))
        return output

    return run, [x.requires_grad_(), *(p.detach().requires_grad_() for p in convolution.parameters())]


@every_shape
def test_equals_torch_bit_for_bit_or_nearly(shape: dict[str, Any]) -> None:
    convolution, x = layer(shape)
    with twice_differentiable():
        found = convolution(x)
    torch.testing.assert_close(found, convolution(x), rtol=1e-14, atol=1e-14)


@every_shape
def test_first_and_second_derivatives_equal_central_differences(shape: dict[str, Any]) -> None:
    run, inputs = applied(shape)
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


@every_shape
def test_second_derivatives_equal_those_of_torch(shape: dict[str, Any]) -> None:
    run, inputs = applied(shape)
    convolution, _ = layer(shape)

    def theirs(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(
            x,
            parameters[0],
            parameters[1] if len(parameters) > 1 else None,
            convolution.stride,
            convolution.padding,
            convolution.dilation,
            convolution.groups,
        )

    found, expected = (second(each, inputs) for each in (run, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def second(run: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    first = torch.autograd.grad(run(*inputs).sin().sum(), inputs, create_graph=True)
    return list(torch.autograd.grad(sum((g.cos().sum() for g in first), torch.zeros(())), inputs))


def test_only_what_is_asked_for_is_computed() -> None:
    run, (x, *parameters) = applied(SHAPES["depthwise"])
    first = torch.autograd.grad(run(x, *parameters).sin().sum(), parameters, create_graph=True)
    (found,) = torch.autograd.grad([first[0].sum()], x)
    assert found.abs().max() > 0


def test_there_is_one_convolution_for_all_groups() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counted(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += "convolution" in func.name()
            return func(*args, **(kwargs or {}))

    run, inputs = applied({"kernel_size": 3, "padding": 1, "groups": 4})
    with Counted() as counted:
        second(run, inputs)
    assert counted.count <= 8
