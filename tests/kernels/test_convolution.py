"""Grouped convolutions against torch's own and finite differences: derivatives of all orders, in all modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from nas.kernels import convolution
from nas.kernels.convolution import conv2d
from nas.kernels.second_order import twice_differentiable

SETTINGS: dict[str, dict[str, Any]] = {
    "depthwise": {"kernel_size": 3, "padding": 1, "groups": 4},
    "depthwise, oblong": {"kernel_size": (5, 3), "padding": (2, 1), "groups": 4},
    "depthwise, dilated": {"kernel_size": 3, "padding": 2, "dilation": 2, "groups": 4},
    "depthwise, of any padding": {"kernel_size": (3, 5), "padding": (0, 4), "dilation": (1, 2), "groups": 4},
    "depthwise, even": {"kernel_size": (1, 2), "padding": (0, 1), "groups": 4, "bias": False},
    "depthwise, padded beyond the kernel": {"kernel_size": 3, "padding": 3, "groups": 4},
    "depthwise, strided": {"kernel_size": 3, "stride": 2, "padding": 2, "dilation": 2, "groups": 4},
    "two groups, oblong": {"kernel_size": (3, 1), "stride": (1, 2), "padding": (1, 0), "groups": 2},
    "1x1": {"kernel_size": 1, "groups": 2, "bias": False},
    "a multiplier": {"kernel_size": 3, "groups": 4, "out_channels": 8, "bias": False},
    "one group": {"kernel_size": 3},
    "same": {"kernel_size": 3, "padding": "same", "groups": 4},
}
every_setting = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
every_format = pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
FORWARD_MODE = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own


def case(settings: dict[str, Any], *, last: bool = False) -> tuple[dict[str, Any], list[Tensor]]:
    """Arguments of a convolution, and its image, kernel and perhaps bias."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.Conv2d(4, **{"out_channels": 4, **settings}).double()
        x = torch.randn(2, 4, 6, 5, dtype=torch.double)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    arguments = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
    return arguments, [x.requires_grad_(), *(p.detach().requires_grad_() for p in layer.parameters())]


def derivatives(convolve: Callable[..., Tensor], inputs: list[Tensor], arguments: dict[str, Any]) -> list[Tensor]:
    """Output, gradients and second derivatives."""
    out = convolve(*inputs, **arguments)
    first = torch.autograd.grad(out.sin().sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum((g.cos().sum() for g in first), torch.zeros(())), inputs)
    return [out, *first, *second]


@every_setting
@every_format
def test_values_and_two_derivatives_are_those_of_torch(settings: dict[str, Any], last: bool) -> None:
    arguments, inputs = case(settings, last=last)
    found, expected = (derivatives(each, inputs, arguments) for each in (conv2d, torch.conv2d))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert [g.stride() for g in found[1:2]] == [g.stride() for g in expected[1:2]]


@FORWARD_MODE
@every_setting
def test_derivatives_are_those_of_finite_differences(settings: dict[str, Any]) -> None:
    arguments, inputs = case(settings)
    image, rest = inputs[0][:1, :, :5, :4].detach().requires_grad_(), inputs[1:]

    def convolve(*inputs: Tensor) -> Tensor:
        return conv2d(*inputs, **arguments)

    assert gradcheck(convolve, (image, *rest), check_forward_ad=True, check_batched_grad=True, fast_mode=True)
    checks = {"check_fwd_over_rev": True, "check_rev_over_rev": True, "fast_mode": True}
    assert gradgradcheck(convolve, (image, *rest), **checks)
    assert gradgradcheck(lambda x: convolve(x, *(t.detach() for t in rest)), (image,), **checks)
    assert gradgradcheck(lambda w: convolve(image.detach(), w), (rest[0],), **checks)


@FORWARD_MODE
@pytest.mark.parametrize("name", ["depthwise, dilated", "depthwise, strided", "1x1", "a multiplier"])
def test_batches_of_images_and_of_kernels(name: str) -> None:
    arguments, (x, weight, *_) = case(SETTINGS[name])
    images, kernels = torch.stack([x, 2 * x]), torch.stack([weight, weight.sin()])

    def gradients(x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        return torch.func.grad(lambda x, w: conv2d(x, w, **arguments).square().sum(), (0, 1))(x, weight)

    found = torch.func.vmap(gradients)(images, kernels)
    expected = [gradients(x, weight) for x, weight in zip(images, kernels, strict=True)]
    for i in range(2):
        torch.testing.assert_close(found[i], torch.stack([pair[i] for pair in expected]), rtol=1e-12, atol=1e-12)


@FORWARD_MODE
@pytest.mark.parametrize("name", ["depthwise, dilated", "depthwise, strided", "1x1"])
def test_hessians(name: str) -> None:
    """Forward mode over reverse mode, both batched."""
    arguments, (x, weight, *_) = case(SETTINGS[name])
    hessians = [
        torch.func.hessian(lambda w, f=f: f(x.detach(), w, **arguments).sin().sum())(weight.detach())
        for f in (conv2d, torch.conv2d)
    ]
    torch.testing.assert_close(*hessians, rtol=1e-12, atol=1e-12)


def test_only_what_is_asked_for_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    real = convolution._derivative
    monkeypatch.setattr(convolution, "_derivative", lambda f, by, g: computed.append(by) or real(f, by, g))
    arguments, (x, weight, _) = case(SETTINGS["depthwise"])
    out = conv2d(x, weight, **arguments).sum()
    for each, by in ((x, convolution.IMAGE), (weight, convolution.KERNEL)):
        computed.clear()
        torch.autograd.grad(out, each, retain_graph=True)
        assert computed == [by]


def test_there_is_one_convolution_for_all_groups() -> None:
    class Counted(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += "convolution" in func.name()
            return func(*args, **(kwargs or {}))

    arguments, inputs = case(SETTINGS["depthwise"])
    with Counted() as counted:
        derivatives(conv2d, inputs, arguments)
    # The output; 2 gradients; 4 terms of their derivatives; 2 gradients again, of the output's own.
    assert counted.count == 9


def test_a_context_of_second_derivatives_replaces_torchs_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, inputs = case(SETTINGS["depthwise"])
    layer = nn.Conv2d(4, 4, 3, padding=1, groups=4).double()
    layer.load_state_dict(dict(zip(("weight", "bias"), inputs[1:], strict=True)))
    with twice_differentiable():
        out = layer(inputs[0])
    torch.testing.assert_close(out, conv2d(*inputs, **arguments), rtol=0, atol=0)
    assert "_Derivative" in type(out.grad_fn.next_functions[0][0]).__name__
