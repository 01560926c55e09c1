from __future__ import annotations

import pytest
import torch
from torch import nn

from nas.supernet import Supernet
from tmics_space.inference import folded
from tmics_space.space import tmics


def network() -> nn.Module:
    """A derived network whose norms have seen something, in float64."""
    torch.manual_seed(0)
    supernet = Supernet(tmics, channels=4, dna_cells=1, cna_cells=1, alignment=["tgm"], frequency=["gf2"])
    network = supernet.derived(supernet.derive()).double()
    for _ in range(3):
        network(torch.rand(2, 5, 3, 20, 18, dtype=torch.float64))
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_a_folded_network_computes_the_same_without_norms() -> None:
    whole = network()
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    fast = folded(whole)
    assert norms(whole) > 10
    assert norms(fast) == 0
    x = torch.rand(2, 5, 3, 21, 19, dtype=torch.float64)
    for found, expected in zip(fast(x), whole(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, before[name])


def test_what_cannot_be_folded_stays() -> None:
    depthwise = nn.Conv2d(4, 4, 3, groups=4)
    others = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), depthwise, nn.ReLU(), nn.BatchNorm2d(4)).eval()
    assert folded(others) is others
    training = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    assert folded(training) is training
    assert folded(training.eval()) is not training
    for part in training:
        part.train()
        assert folded(training) is training
        part.eval()
    batchwise = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    assert folded(batchwise) is batchwise


@pytest.mark.parametrize("bias", [False, True])
def test_a_pointwise_convolution_joins_the_one_in_front(bias: bool) -> None:
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=2, dilation=2, bias=bias),
        nn.Conv2d(4, 4, 1, bias=not bias),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 1),  # behind an activation
        nn.Conv2d(6, 4, 3),  # more than a pixel
    )
    nn.init.normal_(layers[2].running_mean)
    layers.double().eval()
    fast = folded(layers)
    assert [type(layer) for layer in fast[1:3]] == [nn.Identity, nn.Identity]
    assert sum(isinstance(layer, nn.Conv2d) for layer in fast) == 3
    x = torch.rand(2, 3, 7, 9, dtype=torch.float64)
    torch.testing.assert_close(fast(x), layers(x), rtol=0, atol=1e-12)


def test_a_pointwise_convolution_that_saves_nothing_stays() -> None:
    fewer = nn.Sequential(nn.Conv2d(8, 2, 3), nn.Conv2d(2, 8, 1))
    apart = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1))
    for layers in (fewer.eval(), apart.eval()):
        assert folded(layers) is layers
