"""What networks and their modules cost: closed forms, sums, and times that are known."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from nas.cost.network_cost import WHOLE, Row, breakdown, measure
from nas.errors import ConfigError
from nas.genotype.file import Genotype
from nas.space.definition import find_space

CLOCK = [0.0]
"""Seconds, in place of those of a machine that runs other programs."""


class Slow(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        CLOCK[0] += 1
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


def test_time_of_all_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: CLOCK[0])
    found = rows(Net(), 1, 3, 4, 4)
    assert {name: row.seconds for name, row in found.items()} == {
        WHOLE: 2.0, "stem": 0.0, "blocks.0": 0.0, "blocks.1": 2.0, "head": None, "norm": 0.0,
    }  # fmt: skip


def test_times_are_medians_after_one_pass_that_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Varying(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            CLOCK[0] += next(taken)
            return x

    monkeypatch.setattr(time, "perf_counter", lambda: CLOCK[0])
    for runs, expected in [(1, 2.0), (3, 4.0)]:
        taken = iter([128.0, 2.0, 16.0, 4.0, *[0.0] * 2])
        whole, row = breakdown(nn.Sequential(Varying()), [torch.zeros(1)], runs=runs)
        assert row.seconds == whole.seconds == expected


def test_depth() -> None:
    assert {"blocks.0.0", "blocks.0.1", "stem"} <= set(rows(Net(), depth=2))
    assert "blocks.0" not in rows(Net(), depth=2)
    assert rows(Net(), 1, 3, 4, 4, depth=2)["blocks.0.0"].flops == 2 * 16 * 16


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
    with pytest.raises(ConfigError, match=r"inputs of shape 1x2x4x4 on cpu, got RuntimeError: .*expected input"):
        rows(Net(), 1, 2, 4, 4)


def test_what_several_modules_share_counts_once() -> None:
    """One module at two paths, one that another row calls, and a tied weight."""

    class Calling(nn.Module):
        def __init__(self, other: nn.Module) -> None:
            super().__init__()
            self.own = nn.Linear(4, 4, bias=False)
            self.others = [other]  # hidden from `named_children`

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.others[0](self.own(x))
            return result

    layer, tied = nn.Linear(4, 4), nn.Linear(4, 4)
    tied.weight = layer.weight
    network, inputs = nn.Sequential(layer, layer, tied, Calling(layer)), [torch.zeros(1, 4)]
    whole, *found = breakdown(network, inputs, runs=1)
    once = 2 * 4 * 4
    assert [(row.module, row.parameters, row.flops) for row in found] == [
        ("0", 20, 3 * once), ("2", 4, once), ("3", 16, once),
    ]  # fmt: skip
    assert whole.parameters == measure(network) == 40
    assert whole.flops == measure(network, "flops", inputs) == 5 * once
    lists = nn.ModuleDict({"first": nn.ModuleList([layer]), "second": nn.ModuleList([layer])})
    assert breakdown(lists) == [Row(WHOLE, 20), Row("first.0", 20)]


def test_measuring_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4).eval())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert measure(network, "flops", [torch.randn(2, 3, 5, 6)]) == 2 * (2 * 5 * 6) * 3 * 4
    assert [module.training for module in network.modules()] == [True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert measure(nn.BatchNorm1d(2), "flops", [torch.zeros(1, 2)]) == 0  # which fails in training mode
