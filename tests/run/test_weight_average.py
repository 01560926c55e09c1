"""The exponential moving average of weights, against its closed form in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.run.weight_average import WeightAverage


class Net(nn.Module):
    """A weight, a running statistic, a counter and a constant mask with infinite values."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.statistic: Tensor
        self.register_buffer("statistic", torch.zeros(2))
        self.count: Tensor
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("mask", torch.tensor([0.0, -math.inf]))


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_it_is_the_weighted_mean_of_all_steps(decay: float) -> None:
    """With weights (1 - d_i) d_(i+1) ... d_n, which add up to 1: the values before the first step have none."""
    torch.manual_seed(0)
    net, values = Net(), np.random.default_rng(0).normal(size=(40, 2))
    average = WeightAverage(net, decay)
    with torch.no_grad():
        for step, value in enumerate(values):
            net.weight.copy_(torch.from_numpy(value))
            net.statistic.copy_(torch.from_numpy(-value))
            net.count += 1
            average.update(step)
    decays = [min(decay, t / (t + 10)) for t in range(40)]
    shares = np.array([(1 - decays[i]) * math.prod(decays[i + 1 :]) for i in range(40)])
    assert shares.sum() == pytest.approx(1)
    expected = torch.from_numpy(shares @ values).float()
    own = net.weight.detach().clone()
    with average.applied():
        torch.testing.assert_close(net.weight.detach(), expected)
        torch.testing.assert_close(net.statistic, -expected)
        assert net.count == 40
        assert net.state_dict()["mask"].tolist() == [0.0, -math.inf]
    assert torch.equal(net.weight, own)
    average.copy_to_network()
    torch.testing.assert_close(net.weight.detach(), expected)


def test_values_that_do_not_change_are_their_own_average_bit_for_bit() -> None:
    net = nn.Linear(3, 3)
    before = net.weight.detach().clone()
    average = WeightAverage(net, 0.99)
    for step in range(30):
        average.update(step)
    average.copy_to_network()
    assert torch.equal(net.weight, before)
