"""The search space of RUAS: a light-estimating and a noise-removing module, each unrolled with one searched cell."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas import Chooser, OperationSet, operation, search_space
from nas.registry import Count
from nas.space.operations import Factory

DARKEST = 0.001
"""The least light: pictures are divided by the light."""
CORRECTION = 0.5
"""How much of the picture enhanced so far is taken back, the factor gamma of the paper."""
SLOPE = 0.05
"""Of the leaky rectifiers."""
PAIRS = 3
"""In a cell, the pairs of an operation that keeps features and one that passes them on."""


class Enhanced(NamedTuple):
    """An enhanced picture, and what it was made of."""

    output: Tensor
    """The picture without noise, `(batch, 3, height, width)`."""
    lit: Tensor
    """The picture in good light, in [0, 1], with its noise."""
    light: Tensor
    """The estimated light, in [0.001, 1]: the picture is `lit * light`."""


class Residual(nn.Module):
    """Adds its input to what a module returns."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.body(x) + x
        return output


@operation("biased_conv")
def biased_conv(channels: int, *, kernel: int = 3, dilation: int = 1, residual: bool = False) -> nn.Module:
    """Convolution kxk with a bias, and with its input added if `residual`. k² C² + C parameters."""
    conv = nn.Conv2d(channels, channels, kernel, padding=dilation * (kernel // 2), dilation=dilation)
    return Residual(conv) if residual else conv


def skip(channels: int) -> nn.Module:
    """The identity."""
    return nn.Identity()


CANDIDATES = OperationSet(
    {
        "skip_connect": skip,
        "conv_1x1": partial(biased_conv, kernel=1),
        "conv_3x3": partial(biased_conv, kernel=3),
        "dilconv_3x3": partial(biased_conv, kernel=3, dilation=2),
        "resconv_1x1": partial(biased_conv, kernel=1, residual=True),
        "resconv_3x3": partial(biased_conv, kernel=3, residual=True),
        "resdilconv_3x3": partial(biased_conv, kernel=3, dilation=2, residual=True),
    }
).register("ruas")
"""The seven candidates of the authors' code (`genotypes.py`)."""


@search_space("ruas")
def ruas_space(
    choose: Chooser,
    /,
    *,
    estimations: Count = 3,
    denoisings: Count = 3,
    channels: Count = 6,
    operations: OperationSet = CANDIDATES,
) -> nn.Module:
    """Enhancement of low-light pictures by two modules that cooperate (RUAS).

    A picture is the product of a picture in good light and of the light. The module `light` estimates the light, in
    `estimations` rounds; each divides the picture by its estimate, and the next one corrects it. The module `noise`
    removes the noise that this division amplifies. Each module repeats a cell of seven searched operations: `light/...`
    with three channels, `noise/...` with `channels`. The factories in `operations` take `channels`.

    Args:
        choose: states the decisions.
        estimations: rounds of the module `light`.
        denoisings: cells of the module `noise`.
        channels: of the module `noise`.
        operations: the candidates of every decision.

    Shape:
        Pictures `(batch, 3, height, width)` in [0, 1] to `Enhanced`.

    References:
        Liu, Ma, Zhang, Fan, Luo, "Retinex-inspired Unrolling with Cooperative Prior Architecture Search for Low-light
        Image Enhancement", CVPR 2021, sec. 3 and 4; sizes and constants are those of https://github.com/KarelZhang/RUAS
        (`model_search.py`).
    """
    own = operations.bind(3)
    light = Light([Distillation(choose, "light", own, 3) for _ in range(estimations)])
    wide = operations.bind(channels)
    noise = Noise([Distillation(choose, "noise", wide, channels) for _ in range(denoisings)], channels)
    return Ruas(light, noise)


class Distillation(nn.Module):
    """A cell that keeps features at four depths and merges them. 4 C² + C parameters and those of seven operations.

    Args:
        choose: states the decisions `label/keep_1`, `label/pass_1`, ..., `label/keep_4`.
        label: of the decisions.
        candidates: of each decision.
        channels: of the cell.
    """

    def __init__(self, choose: Chooser, label: str, candidates: Mapping[str, Factory], channels: int) -> None:
        super().__init__()
        keep, go = [], []
        for number in range(1, PAIRS + 1):
            keep.append(choose(f"{label}/keep_{number}", candidates))
            go.append(choose(f"{label}/pass_{number}", candidates))
        keep.append(choose(f"{label}/keep_{PAIRS + 1}", candidates))
        self.keep, self.go = nn.ModuleList(keep), nn.ModuleList(go)
        self.merge = nn.Conv2d((PAIRS + 1) * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        *pairs, last = self.keep
        kept = []
        for keep, go in zip(pairs, self.go, strict=True):
            kept.append(F.leaky_relu(keep(x), SLOPE))
            x = F.leaky_relu(go(x) + x, SLOPE)
        kept.append(F.leaky_relu(last(x), SLOPE))
        merged: Tensor = self.merge(torch.cat(kept, 1))
        return merged


class Light(nn.Module):
    """Estimates the light of a picture round by round; returns the picture in good light and the light."""

    def __init__(self, cells: list[Distillation]) -> None:
        super().__init__()
        self.cells = nn.ModuleList(cells)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        guess = brightest(picture)
        for cell in self.cells:
            light = cell(guess).sigmoid().clamp(DARKEST, 1.0)
            lit = (picture / light).clamp(0.0, 1.0)
            guess = brightest(lit) - CORRECTION * (lit - picture)
        return lit, light


class Noise(nn.Module):
    """Returns the noise of a picture. 57 C + 3 parameters without the C of its cells."""

    def __init__(self, cells: list[Distillation], channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.cells = nn.Sequential(*cells)
        self.head = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, picture: Tensor) -> Tensor:
        noise: Tensor = self.head(self.cells(self.stem(picture)))
        return noise


class Ruas(nn.Module):
    """Light, then noise."""

    def __init__(self, light: Light, noise: Noise) -> None:
        super().__init__()
        self.light, self.noise = light, noise

    def forward(self, picture: Tensor) -> Enhanced:
        lit, light = self.light(picture)
        return Enhanced(lit - self.noise(lit), lit, light)


def brightest(x: Tensor) -> Tensor:
    """Return the maximum of each pixel, its right and lower neighbours, and zero beyond the edges."""
    return F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2, stride=1)
