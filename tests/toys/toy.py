"""A search space and its task for tests, small enough for milliseconds a step: `--import toy` registers them.

Its batch norm, dropout and two-dimensional convolutions make random state, buffers and memory layout matter.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from nas.errors import UnknownNameError
from nas.genotype.decision import Choice
from nas.registry import register
from nas.run.config import Config, load_config
from nas.run.task import TEST, Preview, Task
from nas.space.chooser import Chooser
from nas.space.definition import search_space

CONFIG = Path(__file__).parent / "configs" / "toy.yaml"
CHEAPEST: dict[str, Choice] = {"first": "scale", "second": "tanh"}
DEAREST: dict[str, Choice] = {"first": "conv", "second": "linear"}
SPLITS = ("train", "middle", "val", "all")


def config(*overrides: str) -> Config:
    """The toy configuration with overrides."""
    return load_config(CONFIG, overrides)


class Scale(nn.Module):
    """Scales every channel, and drops some values."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = self.scale * self.dropout(x)
        return scaled


class Toy(nn.Module):
    """Two operations in a row, and their result averaged with the input: (batch, 2, 5, 5) to the same."""

    def __init__(self, channels: int, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, channels, 3, padding=1)
        self.first, self.second = first, second
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Conv2d(channels, 2, 1)
        self.averaging = nn.Linear(2, 2)

    def branch(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.second(self.norm(self.first(self.stem(x)))))
        return result

    def forward(self, x: Tensor) -> Tensor:
        branch = self.branch(x)
        share = self.averaging(branch.mean((2, 3))).sigmoid()[..., None, None]
        fused: Tensor = share * branch + (1 - share) * x
        return fused


@search_space("toy")
def toy(choose: Chooser, /, *, channels: int = 4) -> nn.Module:
    """Two decisions for tests."""
    first: dict[str, Callable[[], nn.Module]] = {
        "conv": lambda: nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)),
        "depthwise": lambda: nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
        "scale": lambda: Scale(channels),
    }
    second: dict[str, Callable[[], nn.Module]] = {"linear": lambda: nn.Conv2d(channels, channels, 1), "tanh": nn.Tanh}
    return Toy(channels, choose("first", first), choose("second", second))


class ToyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Data of the toy task."""

    batch: int = 4
    broken: int | None = None
    """The batch from which on data are not-a-number."""
    pause: float = 0.0
    """Seconds that a batch takes, but for the first three, which are read before the first step is recorded."""


@register("task", "toy")
class ToyTask(Task):
    """Sharpen random pictures."""

    Config = ToyConfig
    config: ToyConfig
    score = "score"
    metrics = MappingProxyType({"score": "max"})

    def __init__(self, config: ToyConfig, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.losses = {"lower": _lower, "fused": _fused}

    def batch(self, split: str, index: int) -> tuple[Tensor, Tensor]:
        if split not in SPLITS:
            raise UnknownNameError("split", split, SPLITS)
        time.sleep(self.config.pause if index > 2 else 0)
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed}/{split}/{index}".encode()))
        x = torch.randn(self.config.batch, 2, 5, 5, generator=generator)
        if self.config.broken is not None and index >= self.config.broken:
            x = x * float("nan")
        return x, 2 * x - nn.functional.avg_pool2d(x, 3, 1, 1)

    def example(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, 2, 5, 5),)

    def evaluate(self, network: nn.Module, split: str = TEST) -> dict[str, float]:
        assert not network.training
        assert not torch.is_grad_enabled()
        return self.measure(network, self.batch("val" if split == TEST else split, 0))

    def measure(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, float]:
        assert not network.training
        assert not torch.is_grad_enabled()
        return {"score": -_fused(network, batch).item()}

    def members(self, split: str) -> list[str]:
        """`all` has the pictures of every other split."""
        return [*SPLITS[:-1]] if split == "all" else [split]

    def previews(self, network: nn.Module) -> list[Preview]:
        """The pictures as grey frames, before and after."""
        assert not network.training
        assert not torch.is_grad_enabled()
        x, _ = self.batch("val", 0)
        layers = {"before": x, "after": network(x)}
        grey = {name: (each[:, :1].sigmoid() * 255).byte().expand(-1, 3, -1, -1) for name, each in layers.items()}
        return [Preview("noise", grey)]

    def predict(self, network: nn.Module, source: Path, sink: Path, **options: Any) -> dict[str, float]:
        """From a text of numbers to another."""
        x = torch.tensor([float(number) for number in source.read_text().split()]).reshape(-1, 2, 5, 5)
        with torch.no_grad():
            y = network(x)
        options["progress"](len(x), len(x))
        sink.write_text(" ".join(map(str, y.flatten().tolist())))
        return {"pictures": len(x), "seed": self.seed}


def _lower(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Of the branch alone in a derived network; a supernet is reached through its `forward` only."""
    x, y = batch
    return nn.functional.mse_loss(network.branch(x) if isinstance(network, Toy) else network(x), y)


def _fused(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    return nn.functional.smooth_l1_loss(network(x), y)
