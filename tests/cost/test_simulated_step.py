"""Simulated memory against closed forms, and against the bytes of tensors in the same computation done for real."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.cost.meter import Tally, footprint
from nas.cost.simulated_step import SMALL, Simulation
from nas.run.plan import resident

MIB = 2**20
COUNT = MIB // 4
"""Numbers in a tensor of 1 MiB."""


def test_bytes_live_as_long_as_their_tensors() -> None:
    x = torch.ones(COUNT)
    with Simulation([x]) as simulation:
        y = x + 1
        z = y.view(-1, 2).t()  # no memory of its own
        assert simulation.live == 2 * MIB
        del y
        assert simulation.live == 2 * MIB, "its view lives"
        del z
        assert simulation.live == MIB
        x.mul_(2)
        assert (simulation.live, simulation.peak) == (MIB, 2 * MIB)
    assert torch.equal(x, torch.ones(COUNT)), "nothing large is written"


def test_a_chain_keeps_what_its_gradient_needs() -> None:
    x = torch.ones(COUNT, requires_grad=True)
    with Simulation([x]) as simulation:
        y = x
        for _ in range(5):
            y = y.exp()  # each output is kept
        assert simulation.live == 6 * MIB
        (gradient,) = torch.autograd.grad(y.sum(), x)
        del y
        assert (gradient.shape, simulation.live) == (x.shape, 2 * MIB)


def test_nothing_large_takes_memory_or_time() -> None:
    before = resident()
    with Simulation() as simulation:
        kept = [torch.full((2**28,), 1.0) @ torch.zeros(2**28, 4) for _ in range(3)]
        many = [torch.randn(2**28) for _ in range(40)]
    assert simulation.peak >= 40 * 2**30
    assert simulation.flops == 3 * 2 * 4 * 2**28
    assert resident() - before < 200 * MIB
    assert len(kept) + len(many) == 43


def test_small_tensors_are_computed_and_what_large_ones_give_is_finite() -> None:
    logits = torch.tensor([0.1, 2.0, 0.3], requires_grad=True)
    with Simulation():
        weights = logits.softmax(0)
        assert int(weights.argmax()) == 1
        loss = (weights.sum() * torch.randn(SMALL + 1)).mean()
        assert loss.isfinite()
        loss.backward()
    assert torch.equal(weights, logits.softmax(0))
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_the_meta_device_is_left_alone() -> None:
    with Simulation() as simulation:
        assert (torch.zeros(COUNT, device="meta") + 1).device.type == "meta"
    assert simulation.peak == 0


def network() -> nn.Sequential:
    layers = [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 5, groups=8),
    ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 12 * 12, 10))


def training(
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer], *, second: bool
) -> tuple[Callable[[], None], nn.Module]:
    torch.manual_seed(0)
    net, x, labels = network(), torch.randn(16, 3, 32, 32), torch.randint(0, 10, (16,))
    own = optimizer(list(net.parameters()))

    def step() -> None:
        loss = F.cross_entropy(net(x), labels)
        if second:
            gradients = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
            loss = sum((g.square().sum() for g in gradients), start=loss)
        own.zero_grad()
        loss.backward()
        own.step()

    return step, net


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize(
    "optimizer", [lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), lambda p: torch.optim.Adam(p, 1e-3)]
)
def test_a_training_step_simulates_the_bytes_and_flops_of_the_real_one(
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer], second: bool
) -> None:
    step, net = training(optimizer, second=second)
    step()  # optimizers have their states from now on
    real = footprint(step, net.parameters())
    step, _ = training(optimizer, second=second)
    with Simulation() as simulation:
        step()
        before, simulation.peak, flops = simulation.live, simulation.live, simulation.flops
        step()
    assert simulation.peak - before == pytest.approx(real.memory, rel=0.1)
    with Tally() as tally:
        training(optimizer, second=second)[0]()
    assert simulation.flops - flops == flops == pytest.approx(tally.flops, rel=0.05)
