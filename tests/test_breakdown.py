"""What modules cost: closed forms, sums, and times that are known."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from nas.breakdown import WHOLE, Row, breakdown
from nas.cost import measure
from nas.errors import ConfigError
from nas.genotype import Genotype
from nas.space import find_space


class Slow(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.01)
        return x


class Net(nn.Module):
    """A convolution, two blocks of which the second runs twice, and a head that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()), Slow()])
        self.head = nn.Linear(4, 2)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks[0](self.norm(self.stem(x)))
        x = self.blocks[1](self.blocks[1](x))
        return x @ x.transpose(2, 3)


def rows(network: nn.Module, *shape: int, depth: int = 1) -> dict[str, Row]:
    found = breakdown(network, [torch.randn(shape)] if shape else None, depth=depth, runs=3)
    return {row.module: row for row in found}


def test_parameters_alone() -> None:
    found = rows(Net())
    assert [(row.module, row.parameters) for row in found.values()] == [
        (WHOLE, 112 + 20 + 10 + 8), ("stem", 112), ("blocks.0", 20), ("blocks.1", 0), ("head", 10), ("norm", 8),
    ]  # fmt: skip
    assert all(row.flops is row.seconds is None for row in found.values())


def test_flops_in_closed_form() -> None:
    found = rows(Net(), 2, 3, 5, 6)
    assert found["stem"].flops == 2 * (2 * 5 * 6) * 4 * 27
    assert found["blocks.0"].flops == 2 * (2 * 5 * 6) * 4 * 4
    assert found["blocks.1"].flops == 0
    product = 2 * (2 * 4) * 5 * 5 * 6
    assert found[WHOLE].flops == found["stem"].flops + found["blocks.0"].flops + product
    assert found["head"] == Row("head", 10)


def test_time_of_all_calls() -> None:
    found = rows(Net(), 1, 3, 4, 4)
    assert found["blocks.1"].seconds is not None
    assert 0.02 <= found["blocks.1"].seconds <= found[WHOLE].seconds  # type: ignore[operator]
    assert found["stem"].seconds < 0.02  # type: ignore[operator]


def test_depth() -> None:
    assert {"blocks.0.0", "blocks.0.1", "stem"} <= set(rows(Net(), depth=2))
    assert "blocks.0" not in rows(Net(), depth=2)
    assert rows(Net(), 1, 3, 4, 4, depth=2)["blocks.0.0"].flops == 2 * 16 * 16


def test_the_network_stays_as_it_was() -> None:
    network = Net()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    rows(network, 1, 3, 4, 4)
    assert network.training
    assert not network._forward_hooks
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_whole_is_what_cost_measures() -> None:
    genotype = Genotype.load("tmics-heavy")
    options = {**genotype.options, "channels": 4}
    small = Genotype(space="tmics", options=options, choices=genotype.choices)
    inputs = [torch.rand(1, 5, 3, 16, 16)]
    whole, *modules = breakdown(find_space("tmics").derived(small), inputs, runs=1)
    assert whole.parameters == measure(small) == sum(row.parameters for row in modules)
    assert whole.flops == measure(small, "flops", inputs)
    assert sum(row.flops or 0 for row in modules) <= whole.flops


def test_an_input_that_does_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"the network cannot run on 1x2x4x4: .*expected input"):
        rows(Net(), 1, 2, 4, 4)
