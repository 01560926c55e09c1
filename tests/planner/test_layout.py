"""Memory layouts, of images and of their gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from nas.planner.layout import channels_last, laid_out
from nas.supernet import Supernet
from search_spaces.darts import darts


def test_images_and_their_gradients_lie_channels_last() -> None:
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(laid_out(x).mean((2, 3)).sum(), x)
    assert torch.allclose(gradient, torch.full_like(x, 1 / 20))
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    assert laid_out(x).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(laid_out(x), x)


def test_other_tensors_stay() -> None:
    x = torch.randn(2, 3)
    assert laid_out(x) is x


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own, for `jvp`
def test_derivatives() -> None:
    x = torch.randn(1, 2, 2, 3, dtype=torch.double, requires_grad=True)
    assert gradcheck(laid_out, (x,), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(lambda x: laid_out(x) ** 3, (x,), check_fwd_over_rev=True)


def test_only_weights_of_two_dimensions_move() -> None:
    network = nn.ModuleList([nn.Conv2d(2, 3, 3), nn.Conv3d(2, 3, 3), nn.Linear(2, 3)])
    before = [p.detach().clone() for p in network.parameters()]
    channels_last(network)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(map(torch.equal, before, network.parameters()))


def test_on_other_devices_the_layout_is_that_of_torch() -> None:
    supernet = Supernet(darts, channels=4, cells=3, nodes=1)
    stem = supernet.network.stem[0]
    assert stem.weight.is_contiguous(memory_format=torch.channels_last)
    supernet.to("meta")
    assert stem.weight.is_contiguous()
    x = torch.zeros(1, 3, 8, 8, device="meta")
    assert supernet(x).device.type == "meta"
    assert laid_out(x) is x
