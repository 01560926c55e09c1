"""The supernets that `bench.py` times: those of DARTS and NAS-Bench-201, on images of 3 channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from nas.cell import Cell
from nas.choose import Chooser
from nas.operations import OperationSet
from nas.primitives import DARTS, NAS_BENCH_201, FactorizedReduce, relu_conv_bn
from nas.space import search_space


class Darts(nn.Module):
    """Cells on the outputs of the two before."""

    def __init__(self, stem: nn.Module, cells: list[nn.Module], classifier: nn.Module) -> None:
        super().__init__()
        self.stem, self.cells, self.classifier = stem, nn.ModuleList(cells), classifier

    def forward(self, x: Tensor) -> Tensor:
        before = last = self.stem(x)
        for cell in self.cells:
            before, last = last, cell(before, last)
        return self.classifier(last.mean((2, 3)))


class Stage(nn.Module):
    def __init__(self, cell: Cell, before: int, last: int, channels: int, halved: bool) -> None:
        super().__init__()
        self.first = (
            FactorizedReduce(before, channels, affine=False)
            if halved
            else relu_conv_bn(before, kernel=1, out=channels, affine=False)
        )
        self.second = relu_conv_bn(last, kernel=1, out=channels, affine=False)
        self.cell = cell

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        return self.cell(self.first(before), self.second(last))


@search_space("bench-darts")
def darts(
    choose: Chooser, /, *, channels: int = 16, cells: int = 8, nodes: int = 4, operations: OperationSet = DARTS
) -> nn.Module:
    """The supernet of DARTS, sec. 3.1.1."""
    before = last = 3 * channels
    stem = nn.Sequential(nn.Conv2d(3, last, 3, padding=1, bias=False), nn.BatchNorm2d(last))
    stages: list[nn.Module] = []
    reductions = (cells // 3, 2 * cells // 3)
    for number in range(cells):
        reduction = number in reductions
        channels *= 2 if reduction else 1

        def candidates(source: int, node: int, c: int = channels, halving: bool = reduction) -> Mapping[str, Any]:
            return operations.bind(c, stride=2 if halving and source < 2 else 1, affine=False)

        cell = Cell(choose, "reduction" if reduction else "normal", candidates, nodes=nodes)
        stages.append(Stage(cell, before, last, channels, number - 1 in reductions))
        before, last = last, nodes * channels
    return Darts(stem, stages, nn.Linear(last, 10))


class Residual(nn.Module):
    """The reduction block of NAS-Bench-201."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.a = relu_conv_bn(channels, kernel=3, stride=2, out=out)
        self.b = relu_conv_bn(out, kernel=3)
        self.skip = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(channels, out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.b(self.a(x))


@search_space("bench-nas-bench-201")
def nas_bench_201(choose: Chooser, /, *, channels: int = 16, cells: int = 5) -> nn.Module:
    """The supernet of NAS-Bench-201, sec. 2.1: three stages of `cells` cells."""
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)]
    for stage in range(3):
        if stage:
            layers.append(Residual(channels, 2 * channels))
            channels *= 2
        operations = NAS_BENCH_201.bind(channels, affine=False)
        layers += [Cell(choose, "cell", operations, inputs=1, nodes=3, keep=None, output="last") for _ in range(cells)]
    head = [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]
    return nn.Sequential(*layers, *head)
