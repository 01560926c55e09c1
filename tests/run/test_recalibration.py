"""Statistics of batch norms that are taken again, against those of the batches themselves."""

from __future__ import annotations

import torch
from torch import nn

from nas.run.recalibration import recalibrated


def test_statistics_are_means_over_the_batches_and_are_restored() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3), nn.Dropout(0.5))
    network.train()(torch.randn(4, 3, 5, 5))
    network[1].eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    batches = [torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(i)) + i for i in range(3)]
    state = torch.get_rng_state()
    with recalibrated(network, lambda net, batch: net(batch), batches):
        assert not network[0].training
        mean = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
        var = torch.stack([batch.transpose(0, 1).flatten(1).var(1) for batch in batches]).mean(0)
        torch.testing.assert_close(network[0].running_mean, mean)
        torch.testing.assert_close(network[0].running_var, var)
    assert torch.equal(torch.get_rng_state(), state), "dropout stays in eval mode"
    assert (network[0].momentum, network[0].training, network[1].training) == (0.3, True, False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_without_batches_nothing_changes() -> None:
    network = nn.BatchNorm2d(3)
    network(torch.randn(4, 3, 5, 5))
    before = network.running_mean.clone()
    with recalibrated(network, lambda net, batch: net(batch), []):
        assert torch.equal(network.running_mean, before)
