"""The DARTS space (Liu, Simonyan and Yang, ICLR 2019): a normal and a reduction cell, stacked for CIFAR or ImageNet."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from torch import Tensor, nn

from nas import Cell, Chooser, OperationSet, search_space
from nas.errors import ConfigError
from nas.registry import Count, Rate
from nas.space.chooser import Factory
from nas.space.primitives import DARTS, DropPath, FactorizedReduce, relu_conv_bn

S2 = DARTS.only("skip_connect", "sep_conv_3x3").register("robust-darts-s2")
"""The candidates of the space S2 of RobustDARTS (Zela et al., ICLR 2020, sec. 3), on which DARTS collapses."""


@search_space("darts")
def darts_space(
    choose: Chooser,
    /,
    *,
    channels: Count = 16,
    cells: Count = 8,
    nodes: Count = 4,
    classes: Count = 10,
    in_channels: Count = 3,
    affine: bool = False,
    auxiliary: bool = False,
    drop_path: Rate = 0.0,
    stem: Literal["cifar", "imagenet"] = "cifar",
    operations: OperationSet = DARTS,
) -> nn.Module:
    """Image classification by a stack of normal and reduction cells (DARTS).

    Cells `cells // 3` and `2 * cells // 3`, counted from 0, are reduction cells: they halve height and width and double
    the channels. A node keeps two in-edges. The defaults are those of the published search.

    The published networks for CIFAR have `channels=36`, `cells=20`, `affine=True`, `operations="darts-evaluation"`,
    `auxiliary=True` and `drop_path=0.2`. Those for ImageNet have `channels=48`, `cells=14`, `classes=1000`,
    `auxiliary=True` and `stem="imagenet"`.

    The factories in `operations` take `channels`, `stride` and `affine`.

    Args:
        choose: states the decisions.
        channels: of the first cell.
        cells: number of cells.
        nodes: number of nodes in a cell.
        classes: number of classes.
        in_channels: of the images.
        affine: learn scales and shifts of the batch norms in cells.
        auxiliary: add a second head in training mode. It needs images of at least 21 pixels a side, and batches of at
            least two if its maps become one pixel.
        drop_path: probability with which a training image skips an edge that is not an identity.
        stem: `imagenet` is for images of 224 pixels. It has three convolutions of stride 2; cells get the outputs of
            the second and the third.
        operations: the candidates of every edge.

    Raises:
        ConfigError: in a forward pass with an auxiliary head, images or batches are too small.

    Shape:
        Images `(batch, in_channels, height, width)` to scores `(batch, classes)`; in training mode with `auxiliary`, a
        tuple of the scores of both heads.

    References:
        Liu, Simonyan and Yang, "DARTS", ICLR 2019.
    """
    large = stem == "imagenet"
    before = last = channels if large else 3 * channels
    stems = imagenet_stems(in_channels, channels) if large else [cifar_stem(in_channels, last)]
    reductions = (cells // 3, 2 * cells // 3)
    halved = {number + 1 for number in reductions} | ({0} if large else set())
    stages, head = [], None
    for number in range(cells):
        reduction = number in reductions
        channels = 2 * channels if reduction else channels

        def candidates(source: int, node: int, width: int = channels, halving: bool = reduction) -> dict[str, Factory]:
            made = operations.bind(width, stride=2 if halving and source < 2 else 1, affine=affine)
            return {name: partial(_droppable, make, drop_path) for name, make in made.items()}

        cell = Cell(choose, "reduce" if reduction else "normal", candidates, nodes=nodes)
        stages.append(Stage(cell, before, last, channels, halved=number in halved, affine=affine))
        before, last = last, nodes * channels
        if auxiliary and number == reductions[1]:
            head = auxiliary_head(last, classes, large=large)
    return Network(stems, stages, nn.Linear(last, classes), reductions[1], head)


class Network(nn.Module):
    """Stem, cells on the outputs of the last two cells, and classifier; in training mode, also an auxiliary head.

    Args:
        stems: one stem, or two consecutive ones.
        cells: in order.
        classifier: maps the mean of the last cell over pixels to scores.
        branch: index of the cell with the auxiliary head.
        auxiliary: the auxiliary head, or None.
    """

    training_only: ClassVar[tuple[str, ...]] = ("auxiliary",)

    def __init__(
        self,
        stems: list[nn.Module],
        cells: list[Stage],
        classifier: nn.Module,
        branch: int,
        auxiliary: nn.Module | None,
    ) -> None:
        super().__init__()
        self.stem, self.second = stems[0], stems[1] if len(stems) > 1 else None
        self.cells = nn.ModuleList(cells)
        self.classifier = classifier
        self.auxiliary, self.branch = auxiliary, branch
        states = ["stem", "second" if self.second else "stem", *(f"cells.{number}" for number in range(len(cells)))]
        inputs = [(states[i + back], state) for i, state in enumerate(states[2:]) for back in (0, 1)]
        between = [("stem", "second")] if self.second else []
        heads = [("classifier", states[-1])] + ([("auxiliary", f"cells.{branch}")] if auxiliary else [])
        ends = [wire for head, state in heads for wire in ((state, head), (head, "output"))]
        self.wiring = (("input", "stem"), *between, *inputs, *ends)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        first = self.stem(x)
        states = [first, first if self.second is None else self.second(first)]
        for cell in self.cells:
            states.append(cell(*states[-2:]))
        scores: Tensor = self.classifier(states[-1].mean((2, 3)))
        if self.auxiliary is None or not self.training:
            return scores
        _require_room(states[2 + self.branch], x)
        return scores, self.auxiliary(states[2 + self.branch])


class Stage(nn.Module):
    """A cell after projections of its two inputs to its own number of channels and size.

    Args:
        cell: the searched cell.
        before: channels of the output of the cell before the last one.
        last: channels of the output of the last cell.
        channels: of the cell.
        halved: whether the last cell halved height and width.
        affine: learn scales and shifts of the batch norms.
    """

    def __init__(self, cell: Cell, before: int, last: int, channels: int, *, halved: bool, affine: bool) -> None:
        super().__init__()
        project = partial(relu_conv_bn, kernel=1, out=channels, affine=affine)
        self.before = FactorizedReduce(before, channels, affine=affine) if halved else project(before)
        self.last = project(last)
        self.cell = cell

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        output: Tensor = self.cell(self.before(before), self.last(last))
        return output


def cifar_stem(in_channels: int, channels: int) -> nn.Module:
    """Make the stem for CIFAR: one convolution, which keeps height and width, and a batch norm."""
    return nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))


def imagenet_stems(in_channels: int, channels: int) -> list[nn.Module]:
    """Make the authors' two consecutive stems for ImageNet, to a quarter and to an eighth of height and width."""

    def halve(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after)]

    half = max(channels // 2, 1)
    return [
        nn.Sequential(*halve(in_channels, half), nn.ReLU(), *halve(half, channels)),
        nn.Sequential(nn.ReLU(), *halve(channels, channels)),
    ]


def auxiliary_head(channels: int, classes: int, *, large: bool = False) -> nn.Module:
    """Make the authors' auxiliary head.

    It works on maps of 6x6 pixels or more; those of CIFAR have 8x8, those of ImageNet 7x7. The head for ImageNet has no
    norm after its second convolution, as in the experiments of the paper.

    Args:
        channels: of the maps.
        classes: number of classes.
        large: make the head for ImageNet.
    """
    return nn.Sequential(
        nn.ReLU(),
        nn.AvgPool2d(5, stride=2 if large else 3, ceil_mode=True, count_include_pad=False),
        nn.Conv2d(channels, 128, 1, bias=False),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.Conv2d(128, 768, 2, bias=False),
        *([] if large else [nn.BatchNorm2d(768)]),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(768, classes),
    )


def _require_room(maps: Tensor, images: Tensor) -> None:
    """Raise `ConfigError` if maps have too few pixels for the auxiliary head or for its batch norms."""
    (batch, _, height, width), (rows, columns) = maps.shape, images.shape[2:]
    found = f"got maps of {height}x{width} of images of {rows}x{columns}"
    otherwise = "or set auxiliary=false in the options of the space"
    if min(height, width) < 6:
        raise ConfigError(
            f"darts: the auxiliary head must get maps of 6x6 or more, {found}. Use images of 21 pixels or more a side,"
            f" {otherwise}"
        )
    if batch == 1 and max(height, width) < 9:  # which become one pixel
        raise ConfigError(
            f"darts: the auxiliary head must train on batches of 2 or more, {found} in a batch of 1, where a batch norm"
            f" gets one value per channel. Use a larger batch, images of 33 pixels or more a side, {otherwise}"
        )


def _droppable(make: Factory, rate: float) -> nn.Module:
    operation = make()
    return operation if not rate or isinstance(operation, nn.Identity) else nn.Sequential(operation, DropPath(rate))
