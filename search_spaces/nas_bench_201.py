"""The NAS-Bench-201 space (Dong and Yang, ICLR 2020): one cell of four nodes, and the benchmark's names of cells."""

from __future__ import annotations

import re
from collections import OrderedDict
from functools import partial
from typing import Annotated, Any

import msgspec
from torch import Tensor, nn

from nas import Cell, Chooser, Genotype, OperationSet, search_space
from nas.errors import ConfigError
from nas.genotype import Choice
from nas.primitives import NAS_BENCH_201, relu_conv_bn

Positive = Annotated[int, msgspec.Meta(ge=1)]

NODES = (1, 2, 3)
"""The nodes of the cell besides its input, 0."""

NOTATION = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|"
"""How the benchmark writes a cell: node by node the operation on each in-edge and its source."""


@search_space("nas-bench-201")
def nas_bench_201(
    choose: Chooser,
    /,
    *,
    channels: Positive = 16,
    cells: Positive = 5,
    classes: Positive = 10,
    in_channels: Positive = 3,
    affine: bool = False,
    operations: OperationSet = NAS_BENCH_201,
) -> nn.Module:
    """Image classification by three stages of one cell with six edges (NAS-Bench-201).

    Maps (batch, in_channels, height, width) to class scores (batch, classes). Each stage has `cells` cells; between
    stages a residual block halves height and width and doubles the channels. Every node sums all its in-edges, `none`
    among them. The benchmark's networks have `affine=True`: batch norms in cells have learned scales, as those
    outside always have. The factories in `operations` take `channels` and `affine`.
    """
    stem = nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
    layers: dict[str, nn.Module] = {"stem": stem}
    for stage in (1, 2, 3):
        candidates = operations.bind(channels, affine=affine)
        cell = partial(Cell, choose, "cell", candidates, nodes=len(NODES), inputs=1, keep=None, output="last")
        layers[f"stage_{stage}"] = nn.Sequential(*(cell() for _ in range(cells)))
        if stage < 3:
            layers[f"reduction_{stage}"] = Reduction(channels)
            channels *= 2
    layers["head"] = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    layers["classifier"] = nn.Linear(channels, classes)
    return nn.Sequential(OrderedDict(layers))


class Reduction(nn.Module):
    """The residual block between stages: half the height and width, rounded up, twice the channels.

    56 C² + 8 C parameters.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        first = relu_conv_bn(channels, stride=2, out=2 * channels)
        self.body = nn.Sequential(*first, *relu_conv_bn(2 * channels))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(channels, 2 * channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.body(x) + self.shortcut(x)
        return output


def genotype_of(arch: str, **options: Any) -> Genotype:
    """The genotype of a cell in the benchmark's notation, such as `|none~0|+|nor_conv_3x3~0|none~1|+|...|...|...|`.

    `options` are those of the space, by default of the benchmark's networks (`affine=True`). Raises `ConfigError` for
    a text of another form, and `UnknownNameError` for an operation that is none of the benchmark's.
    """
    names = re.findall(r"\b\w+(?=~)", arch)
    if len(names) != NOTATION.count("{}") or arch != NOTATION.format(*names):
        raise ConfigError(f"'{arch}' is no cell of NAS-Bench-201, expected {NOTATION.replace('{}', 'OPERATION')}")
    NAS_BENCH_201.only(*names)  # raises for a name that is none
    choices: dict[str, Choice] = {}
    for node in NODES:
        choices[f"cell/{node}"] = tuple(range(node))
        for source in range(node):
            choices[f"cell/{node}<-{source}"] = names.pop(0)
    return Genotype(
        space="nas-bench-201", choices=choices, options=nas_bench_201.options(**{"affine": True, **options})
    )


def arch_of(genotype: Genotype) -> str:
    """The benchmark's notation of a genotype's cell; raises `ConfigError` for a genotype of another space."""
    if genotype.space != "nas-bench-201":
        raise ConfigError(f"the genotype must be of space 'nas-bench-201', got '{genotype.space}'")
    edges = (f"cell/{node}<-{source}" for node in NODES for source in range(node))
    return NOTATION.format(*(genotype.choices[edge] for edge in edges))
