"""The DARTS space (Liu, Simonyan and Yang, ICLR 2019): a normal and a reduction cell, stacked for CIFAR or ImageNet."""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar, Literal

import msgspec
from torch import Tensor, nn

from nas import Cell, Chooser, OperationSet, search_space
from nas.choose import Factory
from nas.errors import ConfigError
from nas.primitives import DARTS, DropPath, FactorizedReduce, relu_conv_bn

Positive = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]


@search_space("darts")
def darts(
    choose: Chooser,
    /,
    *,
    channels: Positive = 16,
    cells: Positive = 8,
    nodes: Positive = 4,
    classes: Positive = 10,
    in_channels: Positive = 3,
    affine: bool = False,
    auxiliary: bool = False,
    drop_path: Share = 0.0,
    stem: Literal["cifar", "imagenet"] = "cifar",
    operations: OperationSet = DARTS,
) -> nn.Module:
    """Image classification by a stack of normal and reduction cells (DARTS).

    Maps (batch, in_channels, height, width) to class scores (batch, classes). Cells number `cells // 3` and
    `2 * cells // 3`, counted from 0, are reduction cells: they halve height and width and double the channels. A node
    keeps two in-edges. The factories in `operations` take `channels`, `stride` and `affine`.

    The defaults are those of the published search. The published networks have `channels=36`, `cells=20`,
    `affine=True` and `operations="darts-evaluation"`, and are trained with `auxiliary=True` (in training mode the
    network returns two tensors, its scores and those of an auxiliary head; batches have two images or more, images 21
    pixels or more a side) and
    `drop_path=0.2` (the share of its edges, identities apart, that a training image skips). `stem="imagenet"` is for
    images of 224 pixels: three convolutions of stride 2, of which cells see the second and the third. The published
    network has `channels=48`, `cells=14`, `classes=1000` and the auxiliary head of ImageNet.
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
    """Stem, cells on the outputs of the two before, classifier; in training also the auxiliary head of one cell."""

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
    """A cell behind projections of its two inputs to its own size."""

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
    """One convolution, which keeps height and width."""
    return nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))


def imagenet_stems(in_channels: int, channels: int) -> list[nn.Module]:
    """The authors' two stems for ImageNet, one behind the other, to a quarter and to an eighth of height and width."""

    def halve(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after)]

    half = max(channels // 2, 1)
    return [
        nn.Sequential(*halve(in_channels, half), nn.ReLU(), *halve(half, channels)),
        nn.Sequential(nn.ReLU(), *halve(channels, channels)),
    ]


def auxiliary_head(channels: int, classes: int, *, large: bool = False) -> nn.Module:
    """The authors' head for CIFAR, where it sees maps of 8x8, or for ImageNet, 7x7; works from 6x6.

    That for ImageNet has no norm behind its second convolution, as in the experiments of the paper.
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
    """Raise `ConfigError` for maps of too few pixels for the auxiliary head, or for its batch norms in training."""
    (batch, _, height, width), (rows, columns) = maps.shape, images.shape[2:]
    found = f"got maps of {height}x{width} of images of {rows}x{columns}"
    otherwise = "or set auxiliary=false in the options of the space"
    if min(height, width) < 6:
        raise ConfigError(
            f"darts: the auxiliary head must see maps of 6x6 or more, {found}; take images of 21 pixels or more a side,"
            f" {otherwise}"
        )
    if batch == 1 and max(height, width) < 9:  # which become one pixel
        raise ConfigError(
            f"darts: the auxiliary head must train on batches of 2 or more, {found} in a batch of 1, where a batch norm"
            f" sees one value per channel; take a larger batch, images of 33 pixels or more a side, {otherwise}"
        )


def _droppable(make: Factory, rate: float) -> nn.Module:
    operation = make()
    return operation if not rate or isinstance(operation, nn.Identity) else nn.Sequential(operation, DropPath(rate))
