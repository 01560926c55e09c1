from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import ConfigError
from tmics_space.flow import PyramidFlow, photometric_loss, warp
from tmics_space.flow.pyramid import matching_costs


def moved(module: nn.Module) -> nn.Module:
    """`module` with weights away from the zeros that it starts with."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module


def test_it_is_small() -> None:
    assert sum(p.numel() for p in PyramidFlow().parameters()) == 20_098
    assert sum(p.numel() for p in PyramidFlow(64).parameters()) < 300_000
    assert sum(p.numel() for p in PyramidFlow(4, 2).parameters()) < 3_000


@pytest.mark.parametrize("size", [(64, 64), (37, 50), (1, 1), (15, 130)])
def test_the_flow_starts_at_exactly_zero_at_any_size(size: tuple[int, int]) -> None:
    flow = PyramidFlow(4)(torch.rand(2, 3, *size), torch.rand(2, 3, *size))
    assert torch.equal(flow, torch.zeros(2, 2, *size))


@pytest.mark.parametrize("size", [(37, 50), (1, 1), (16, 33)])
def test_any_size_keeps_its_size(size: tuple[int, int]) -> None:
    flow = moved(PyramidFlow(4))(torch.rand(2, 3, *size), torch.rand(2, 3, *size))
    assert flow.shape == (2, 2, *size)
    assert flow.abs().sum() > 0
    assert flow.isfinite().all()


def test_batch_items_are_independent() -> None:
    network = moved(PyramidFlow(4)).double()
    a, b = torch.rand(2, 3, 3, 19, 22, dtype=torch.float64)
    torch.testing.assert_close(network(a, b)[1:2], network(a[1:2], b[1:2]))


def test_every_parameter_learns() -> None:
    network = moved(PyramidFlow(4, 3))
    a, b = torch.rand(2, 2, 3, 24, 24)
    photometric_loss(a, warp(b, flow := network(a, b)), flow).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_the_last_layer_learns_from_the_very_first_step() -> None:
    network = PyramidFlow(4)
    a, b = torch.rand(2, 2, 3, 32, 32)
    photometric_loss(a, warp(b, flow := network(a, b)), flow).backward()
    last = network.estimate[-1].weight.grad
    assert isinstance(last, Tensor)
    assert last.abs().sum() > 0


@pytest.mark.parametrize(("levels", "finest"), [(1, 2), (1, 4), (3, 4), (2, 8)])
def test_every_level_corrects_in_its_own_pixels(levels: int, finest: int) -> None:
    """A constant correction c of every level makes a flow of finest (2^levels - 1) c."""
    network = PyramidFlow(4, levels, finest)
    with torch.no_grad():
        network.estimate[-1].bias.copy_(torch.tensor((1.0, -0.5)))
    flow = network(*torch.rand(2, 2, 3, 37, 50))
    expected = finest * (2**levels - 1) * torch.tensor((1.0, -0.5)).view(1, 2, 1, 1).expand(2, 2, 37, 50)
    assert torch.equal(flow, expected)
    assert network.describe(torch.rand(1, 3, 64, 32))[0].shape[2:] == (64 // finest, 32 // finest)


def test_weights_serve_any_number_of_levels() -> None:
    few, many = PyramidFlow(4, 2), PyramidFlow(4, 5)
    many.load_state_dict(few.state_dict())
    with pytest.raises(ConfigError, match=r"'levels' .* at least 1, got 0"):
        PyramidFlow(4, 0)
    for finest in (1, 3, 0, -2):
        with pytest.raises(ConfigError, match=f"'finest' .* power of 2, at least 2, got {finest}"):
            PyramidFlow(4, 2, finest)


def test_matching_costs_compare_shifted_features() -> None:
    a, b = torch.rand(2, 2, 4, 6, 5, dtype=torch.float64)
    costs = matching_costs(a, b, reach=2)
    assert costs.shape == (2, 25, 6, 5)
    for v in range(-2, 3):
        for u in range(-2, 3):
            for y, x in ((0, 0), (2, 4), (5, 1)):
                there = b[:, :, min(max(y + v, 0), 5), min(max(x + u, 0), 4)]
                expected = (a[:, :, y, x] - there).square().mean(1)
                torch.testing.assert_close(costs[:, 5 * (v + 2) + u + 2, y, x], expected)


def test_matching_costs_are_least_where_the_warp_will_look() -> None:
    """The sign of a shift is the sign of the flow."""
    b = torch.rand(1, 4, 12, 12)
    u, v = 2, -1
    a = warp(b, torch.tensor((u, v), dtype=b.dtype).view(1, 2, 1, 1).expand(1, 2, 12, 12))
    best = matching_costs(a, b, reach=2)[..., 3:-3, 3:-3].argmin(1)
    assert best.eq(5 * (v + 2) + u + 2).all()


@pytest.mark.parametrize("finest", [2, 4])
def test_it_learns_a_motion_without_seeing_it(finest: int) -> None:
    torch.manual_seed(0)
    network = PyramidFlow(8, 2, finest)
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    texture = F.interpolate(torch.rand(4, 3, 8, 8), size=(28, 28), mode="bicubic", align_corners=True)
    truth = torch.tensor(((2.0, 1.0), (-2.0, 1.0), (0.0, -2.0), (1.5, 0.5)))
    flows = truth.view(4, 2, 1, 1).expand(4, 2, 28, 28)
    reference = warp(texture, flows)
    for _ in range(40):
        flow = network(reference, texture)
        loss = photometric_loss(reference, warp(texture, flow), flow)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    error = (network(reference, texture) - flows)[..., 4:-4, 4:-4].square().sum(1).sqrt().mean()
    assert error < 0.5  # pixels; standing still is 2.0


def test_describing_frames_together_or_apart_makes_no_difference() -> None:
    network = moved(PyramidFlow(4)).double()
    assert isinstance(network, PyramidFlow)
    a, b = torch.rand(2, 3, 3, 19, 22, dtype=torch.float64)
    together = network.describe(torch.cat((a, b)))
    assert [level.shape for level in together] == [(6, 4, 32 // 2**k, 32 // 2**k) for k in range(1, 5)]
    found = network.between([level[:3] for level in together], [level[3:] for level in together], (19, 22))
    torch.testing.assert_close(found, network(a, b), rtol=0, atol=1e-12)
    torch.testing.assert_close(network.describe(b[1:2])[2], together[2][4:5], rtol=0, atol=1e-12)
