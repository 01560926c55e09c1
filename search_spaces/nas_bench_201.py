"""The NAS-Bench-201 space (Dong and Yang, ICLR 2020): one cell of four nodes, the benchmark's notation of cells, and a
space of 81 cells that is small enough to train all of them."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from nas import Cell, Chooser, Genotype, OperationSet, search_space
from nas.errors import ConfigError
from nas.genotype.decision import Choice
from nas.registry import Count
from nas.space.operations import Factory
from nas.space.primitives import NAS_BENCH_201, relu_conv_bn

NODES = (1, 2, 3)
"""The nodes of the cell, without its input 0."""

NOTATION = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|"
"""The benchmark's notation of a cell: node by node, the operation and the source of each in-edge."""

SMALL = NAS_BENCH_201.only("skip_connect", "nor_conv_3x3", "avg_pool_3x3").register("nas-bench-201-small")
"""Three of the benchmark's five candidates."""


@search_space("nas-bench-201")
def nas_bench_201_space(
    choose: Chooser,
    /,
    *,
    channels: Count = 16,
    cells: Count = 5,
    classes: Count = 10,
    in_channels: Count = 3,
    affine: bool = False,
    operations: OperationSet = NAS_BENCH_201,
) -> nn.Module:
    """Image classification by three stages of one cell with six edges (NAS-Bench-201).

    Between stages, a residual block halves height and width and doubles the channels. Every node sums all its in-edges.
    The benchmark's networks have `affine=True`. The factories in `operations` take `channels` and `affine`.

    Args:
        choose: states the decisions.
        channels: of the first stage.
        cells: number of cells in a stage.
        classes: number of classes.
        in_channels: of the images.
        affine: learn scales and shifts of the batch norms in cells; those outside are always learned.
        operations: the candidates of every edge.

    Shape:
        Images `(batch, in_channels, height, width)` to scores `(batch, classes)`.

    References:
        Dong and Yang, "NAS-Bench-201", ICLR 2020, sec. 2.1.
    """

    def cell(candidates: dict[str, Factory]) -> nn.Module:
        return Cell(choose, "cell", candidates, nodes=len(NODES), inputs=1, keep=None, output="last")

    def stage(width: int) -> nn.Module:
        candidates = operations.bind(width, affine=affine)
        return nn.Sequential(*(cell(candidates) for _ in range(cells)))

    return network(stage, channels, classes, in_channels)


@search_space("nas-bench-201-small")
def small_space(
    choose: Chooser,
    /,
    *,
    channels: Count = 8,
    cells: Count = 1,
    classes: Count = 10,
    in_channels: Count = 1,
    affine: bool = False,
    operations: OperationSet = SMALL,
) -> nn.Module:
    """Image classification by three stages of one cell with four edges: 81 cells of three operations.

    The cell of NAS-Bench-201 without the edges from its first two nodes to its last one: `cell/1<-0`, `cell/2<-0` and
    `cell/2<-1`, then `last`, the edge from node 2 to node 3. Stem, stages and head are those of `nas-bench-201`.

    Args:
        choose: states the decisions.
        channels: of the first stage.
        cells: number of cells in a stage.
        classes: number of classes.
        in_channels: of the images.
        affine: learn scales and shifts of the batch norms in cells; those outside are always learned.
        operations: the candidates of every edge.

    Shape:
        Images `(batch, in_channels, height, width)` to scores `(batch, classes)`.
    """

    def cell(candidates: dict[str, Factory]) -> list[nn.Module]:
        first = Cell(choose, "cell", candidates, nodes=2, inputs=1, keep=None, output="last")
        return [first, choose("last", candidates)]

    def stage(width: int) -> nn.Module:
        candidates = operations.bind(width, affine=affine)
        return nn.Sequential(*(layer for _ in range(cells) for layer in cell(candidates)))

    return network(stage, channels, classes, in_channels)


def network(stage: Callable[[int], nn.Module], channels: int, classes: int, in_channels: int) -> nn.Module:
    """Make a network of the benchmark: stem, three stages, a residual block after each of the first two, head.

    Args:
        stage: makes a stage that keeps the shape of its input, of the given number of channels.
        channels: of the first stage.
        classes: number of classes.
        in_channels: of the images.
    """
    stem = nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
    layers: dict[str, nn.Module] = {"stem": stem}
    for number in (1, 2, 3):
        layers[f"stage_{number}"] = stage(channels)
        if number < 3:
            layers[f"reduction_{number}"] = Reduction(channels)
            channels *= 2
    layers["head"] = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    layers["classifier"] = nn.Linear(channels, classes)
    return nn.Sequential(OrderedDict(layers))


class Reduction(nn.Module):
    """The residual block between stages. 56 C² + 8 C parameters.

    Shape:
        `(batch, C, height, width)` to `(batch, 2 C, ceil(height / 2), ceil(width / 2))`.
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
    """Read a cell in the benchmark's notation, such as `|none~0|+|nor_conv_3x3~0|none~1|+|...|...|...|`.

    Args:
        arch: the cell.
        options: of the space; by default those of the benchmark's networks (`affine=True`).

    Returns:
        A genotype of the space `nas-bench-201`.

    Raises:
        ConfigError: the text has another form.
        UnknownNameError: the benchmark does not have an operation.
    """
    names = re.findall(r"\b\w+(?=~)", arch)
    if len(names) != NOTATION.count("{}") or arch != NOTATION.format(*names):
        raise ConfigError(f"a cell of NAS-Bench-201 must be {NOTATION.replace('{}', 'OPERATION')}, got '{arch}'")
    NAS_BENCH_201.only(*names)  # raises for an unknown name
    choices: dict[str, Choice] = {}
    for node in NODES:
        choices[f"cell/{node}"] = tuple(range(node))
        for source in range(node):
            choices[f"cell/{node}<-{source}"] = names.pop(0)
    return Genotype(
        space="nas-bench-201", choices=choices, options=nas_bench_201_space.options(**{"affine": True, **options})
    )


def arch_of(genotype: Genotype) -> str:
    """Write a genotype's cell in the benchmark's notation.

    Raises:
        ConfigError: the genotype is of another space.
    """
    if genotype.space != "nas-bench-201":
        raise ConfigError(f"the genotype must be of space 'nas-bench-201', got '{genotype.space}'")
    edges = (f"cell/{node}<-{source}" for node in NODES for source in range(node))
    return NOTATION.format(*(genotype.choices[edge] for edge in edges))
