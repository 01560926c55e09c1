"""A search space whose networks hold what a plugin's may: helpers, constants, state of many kinds, all decisions."""

from __future__ import annotations

import enum
import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import crafted_parts
from crafted_parts import SCALE, describe
from crafted_parts import scaled as enlarged
from nas import Cell, Chain, Chooser, Genotype, operation, search_space
from nas.derive.random import choose_randomly
from nas.errors import ConfigError

SLOPE = 0.1
"""Of the leaky branch."""


class Mode(enum.Enum):
    """How a gate closes."""

    HARD = "hard"
    SOFT = "soft"


@dataclass(frozen=True)
class Window:
    """What a gate looks at."""

    size: int
    weight: float = 1.0


class Result(NamedTuple):
    """What the network returns."""

    output: Tensor
    total: Tensor


def scaled(x: Tensor) -> Tensor:
    """Another function of the name of one in `crafted_parts`."""
    return x / (1 + SLOPE)


@operation("crafted_gate")
class Gate(nn.Module):
    """State of many kinds: attributes, a parameter, buffers, a frozen parameter. Raises `ConfigError` for numbers."""

    def __init__(self, channels: int, *, mode: str = "soft") -> None:
        super().__init__()
        self.unused = object()  # nothing reads it
        self.mode = Mode(mode)
        self.window = Window(channels, math.pi)
        self.activation = F.softplus
        self.enlarged = functools.partial(enlarged, by=3)
        self.limits = {"low": -1.0, "high": float("inf")}
        self.weight = nn.Parameter(torch.randn(channels, 1, 1))
        self.fixed = nn.Parameter(torch.randn(channels, 1, 1), requires_grad=False)
        self.register_buffer("mean", torch.randn(channels, 1, 1))
        self.register_buffer("small", torch.randn(channels, 1, 1), persistent=False)
        self.register_buffer("large", torch.randn(channels, 5, 5), persistent=False)
        self._build(channels)

    def _build(self, channels: int) -> None:
        """Only `__init__` calls it, so it stays behind."""
        self.inner = nn.LSTM(channels, channels, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4:
            raise ConfigError(f"expected 4 dimensions, found {x.dim()}")
        gate = self.activation(self.weight * x) if self.mode is Mode.SOFT else (x > 0).to(x)
        gate = gate.clamp(self.limits["low"], self.limits["high"]) + self.window.weight * self.mean + self.fixed
        tokens, _ = self.inner(x.mean(3).transpose(1, 2))
        return self._closed(enlarged(x) + self.small, gate) + self.large.mean() + tokens.transpose(1, 2).unsqueeze(3)

    def _closed(self, x: Tensor, gate: Tensor) -> Tensor:
        # A comment that stays.
        scaled = crafted_parts.doubled(x)  # a variable of the name of a function
        return torch.tanh(self.enlarged(gate) * scaled)


class Shared(nn.Module):
    """One module in two places, and one weight in two layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Sequential(nn.ReLU(), self.first)
        self.third = nn.Conv2d(channels, channels, 1)
        self.fourth = nn.Conv2d(channels, channels, 1)
        self.fourth.weight = self.third.weight
        self.norms = nn.ModuleDict({"a": nn.BatchNorm2d(channels), "b": nn.GroupNorm(1, channels, affine=False)})
        self.scales = nn.ParameterList([torch.ones(1), torch.zeros(1)])

    def forward(self, x: Tensor) -> Tensor:
        for name in ("first", "second", "third"):
            x = getattr(self, name)(x)
        return self.norms["a"](scaled(x)) * self.scales[0] + self.norms["b"](self.fourth(x)) + self.scales[1]


class Leaky(nn.LeakyReLU):
    """A layer of torch with something more, and another attribute where it is wide."""

    def __init__(self, channels: int, wide: bool = False) -> None:
        super().__init__(SLOPE)
        self.wide = wide
        self.shift = nn.Parameter(torch.randn(channels, 1, 1))

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + SCALE * self.shift


class Umlauts(nn.Module):
    """Names that an export changes stand behind characters of two, three and four bytes, in one line."""

    def forward(self, x: Tensor) -> Tensor:
        parts = {"größe": crafted_parts.doubled(x), "→": crafted_parts.SCALE, "🌧": crafted_parts.scaled(x)}  # äöü
        return parts["größe"] * parts["→"] + parts["🌧"] if "ü" in "größe" else crafted_parts.doubled(x)


class Crafted(nn.Module):
    """(batch, 3, height, width) to a picture like it, and its sum."""

    def __init__(
        self, stem: nn.Module, width: nn.Module, cells: nn.ModuleList, body: nn.Module, head: nn.Module
    ) -> None:
        super().__init__()
        self.stem, self.width, self.cells, self.body, self.head = stem, width, cells, body, head
        self.text = describe(3)

    def forward(self, x: Tensor) -> Result:
        before = last = self.width(self.stem(x))
        for cell in self.cells:
            before, last = last, cell(before, last)
        out = self.head(self.body(last)) + len(self.text)
        return Result(out, out.sum())


@search_space("crafted")
def crafted(choose: Chooser, /, *, nodes: int = 2) -> nn.Module:
    """Every kind of decision, and operations of every kind."""
    width = choose.width("width", [3, 6])
    channels = width.channels
    operations = {
        "gate": lambda: Gate(channels),
        "hard_gate": lambda: Gate(channels, mode="hard"),
        "shared": lambda: Shared(channels),
        "leaky": lambda: Leaky(channels),
        "conv": lambda: nn.Sequential(nn.Conv2d(channels, channels, 3, padding="same"), nn.Dropout(0.1)),
        "skip": nn.Identity,
    }
    cells = nn.ModuleList(Cell(choose, "cell", operations, nodes=nodes, keep=2, output="last") for i in range(2))
    body = nn.Sequential(
        choose.depth("depth", [1, 3], lambda i: nn.Conv2d(channels, channels, 1)),
        Chain(choose, "chain", operations, length=2, residual=True),
    )
    return Crafted(nn.Conv2d(3, channels, 3, padding=1), width, cells, body, nn.Conv2d(channels, 3, 1))


def derived(seed: int) -> nn.Module:
    """The network of a random genotype."""
    description = crafted.describe()
    choices = choose_randomly(description.decisions, torch.Generator().manual_seed(seed))
    network = crafted.derived(Genotype(space="crafted", options=description.options, choices=choices), seed=seed)
    return network.eval()
