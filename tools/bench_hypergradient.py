"""Time each hypergradient method on the DARTS and the TMICS supernet, as ratios to the first-order step of one run.

A step moves the operation weights once and the arch parameters once. Each round runs every method once, so that a
change of the machine's speed affects all of them; a ratio compares the CPU times of one round. Gradient evaluations are
backward passes through the supernet, first or second. Memory is that of the tensors alive at the peak of a step,
without the supernet and its optimizers' state. `--along` measures the finite difference along a short search instead.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nas.cost.meter import footprint
from nas.kernels.memory_format import channels_last
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.run.hypergradient_comparison import Comparison
from nas.space.definition import find_space
from nas.supernet import Supernet
from search_spaces.darts import darts_space
from tmics_space.data.clips import Batch
from tmics_space.data.sources import Films
from tmics_space.data.texture import moving_texture
from tmics_space.task import DerainConfig, DerainTask

METHODS: dict[str, dict[str, Any]] = {
    "first_order": {"name": "first_order"},
    "unrolled": {"name": "unrolled"},
    "finite_difference": {"name": "finite_difference"},
    "truncated, 5 steps": {"name": "truncated", "steps": 5},
    "gauss_newton": {"name": "gauss_newton"},
    "gauss_newton, reuse": {"name": "gauss_newton", "reuse": True, "batches": "repeat"},
    "neumann, 5 terms": {"name": "neumann", "terms": 5},
    "conjugate_gradient, 5": {"name": "conjugate_gradient", "iterations": 5},
}
RADII = (0.02, 0.005, 0.001)
"""Radii, divided by the norm of the operation weights."""


def darts_levels(arguments: argparse.Namespace, method: dict[str, Any]) -> Multilevel:
    """DARTS' two levels on random images, with its optimizers."""
    torch.manual_seed(0)
    supernet = Supernet(darts_space, **how(arguments), channels=arguments.channels, cells=arguments.cells)

    def batch(split: str, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(2 * index + (split == "val"))
        labels = torch.randint(10, (arguments.batch,), generator=generator)
        noise = torch.randn(arguments.batch, 3, 32, 32, generator=generator)
        patterns = torch.randn(10, 3, 32, 32, generator=torch.Generator().manual_seed(99))
        return patterns[labels] + noise, labels

    def loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        with channels_last(network):
            return nn.functional.cross_entropy(network(batch[0].to(dtype_of(network))), batch[1])

    lower = Level(
        parameters=("network.*",),
        loss="loss",
        split="train",
        optimizer={"name": "sgd", "lr": 0.025, "momentum": 0.9, "weight_decay": 3e-4},
        clip=5.0,
    )
    return engine(supernet, {"lower": lower}, {"loss": loss}, "loss", batch, arguments, method)


def tmics_levels(arguments: argparse.Namespace, method: dict[str, Any]) -> Multilevel:
    """TMICS' lower and upper level on moving textures."""
    config = DerainConfig(train=Films(films={}), test=Films(films={}), crop=arguments.crop, batch=1)
    task = DerainTask(config)
    torch.manual_seed(0)
    supernet = Supernet(find_space("tmics"), **how(arguments), channels=arguments.channels, dna_cells=2, cna_cells=2)

    def batch(split: str, index: int) -> Batch:
        seed = 2 * index + (split == "val")
        window = moving_texture(5, arguments.crop, arguments.crop, seed=seed).float()[None] / 255
        rain = torch.rand(window.shape, generator=torch.Generator().manual_seed(seed)) < 0.02
        dtype = dtype_of(supernet)
        return Batch((window + 0.5 * rain).clamp(max=1).to(dtype), window.to(dtype))

    lower = Level(
        parameters=("network.*",), loss="joint", split="train", optimizer={"name": "adam", "lr": 3e-4}, clip=5.0
    )
    return engine(supernet, {"lower": lower}, task.losses, "all", batch, arguments, method)


def how(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"evaluation": arguments.evaluation, "memory": arguments.memory}


def engine(
    supernet: Supernet,
    lower: dict[str, Level],
    losses: Any,
    loss: str,
    batch: Any,
    arguments: argparse.Namespace,
    method: dict[str, Any],
) -> Multilevel:
    if arguments.double:
        supernet.double()
    upper = Level(
        parameters=("arch.*",),
        loss=loss,
        split="val",
        optimizer={"name": "adam", "lr": 3e-4, "betas": (0.5, 0.999), "weight_decay": 1e-3, "decoupled": False},
        hypergradient={"lower": method},
    )
    return Multilevel(supernet, {**lower, "upper": upper}, losses, batch, 1000)


def dtype_of(network: nn.Module) -> torch.dtype:
    return next(network.parameters()).dtype


class Convolutions(TorchDispatchMode):
    """Counts the calls of `torch.autograd.grad` that run through convolutions, each for what it runs itself."""

    def __init__(self) -> None:
        super().__init__()
        self.evaluations = 0
        self._running: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._running and "convolution_backward" in func.name():
            self._running[-1] = True
        return func(*args, **(kwargs or {}))

    @contextmanager
    def counting(self) -> Iterator[None]:
        original = torch.autograd.grad

        def grad(*args: Any, **kwargs: Any) -> Any:
            self._running.append(False)
            try:
                return original(*args, **kwargs)
            finally:
                self.evaluations += self._running.pop()

        with mock.patch("torch.autograd.grad", grad), self:
            yield


def evaluations(levels: Multilevel) -> tuple[int, int]:
    """Forward passes and gradient evaluations of one step."""
    forwards = []
    hook = levels.model.register_forward_pre_hook(lambda *_: forwards.append(1))
    counter = Convolutions()
    with counter.counting():
        levels.step(0)
    hook.remove()
    return len(forwards), counter.evaluations


SPACES = {"darts": darts_levels, "tmics": tmics_levels}


def cpu_seconds(levels: Multilevel, k: int) -> float:
    start = time.process_time()
    levels.step(k)
    return time.process_time() - start


def tensors(levels: Multilevel) -> list[Tensor]:
    """What is there before a step."""
    states = [
        s for optimizer in levels.optimizers.values() for state in optimizer.state.values() for s in state.values()
    ]
    return [*levels.model.parameters(), *levels.model.buffers(), *states]


def costs(arguments: argparse.Namespace) -> None:
    methods = {name: each for name, each in METHODS.items() if name == "first_order" or arguments.only in name}
    engines = {name: SPACES[arguments.space](arguments, method) for name, method in methods.items()}
    counts = {name: evaluations(levels) for name, levels in engines.items()}
    times: dict[str, list[float]] = {name: [] for name in methods}
    for k in range(arguments.rounds):
        for name, levels in engines.items():
            times[name].append(cpu_seconds(levels, k + 1))
    peaks = {
        name: footprint(lambda levels=levels: levels.step(0), tensors(levels)).memory
        for name, levels in engines.items()
    }
    table = Table("method", "forward passes", "gradients", "CPU s", "time ratio", "smallest to largest", "MiB", "ratio")
    for name, values in times.items():
        ratios = [value / first for value, first in zip(values, times["first_order"], strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        numbers = [f"{statistics.median(values):.2f}", f"{statistics.median(ratios):.2f}", spread]
        numbers += [f"{peaks[name] / 2**20:.0f}", f"{peaks[name] / peaks['first_order']:.2f}"]
        table.add_row(name, *map(str, counts[name]), *numbers)
    Console(width=120).print(table)


def along(arguments: argparse.Namespace) -> None:
    """How well finite differences do at points of a first-order search."""
    levels = SPACES[arguments.space](arguments, METHODS["first_order"])
    table = Table("steps", "radius", "response cosine", "response error", "cosine", "error")
    points = sorted({0, 1, *(round(arguments.along * share) for share in (0.1, 0.3, 1))})
    for k in range(arguments.along + 1):
        if k in points:
            check = Comparison(levels, k=k)
            weights = (p.norm() for name, p in levels.model.named_parameters() if name.startswith("network."))
            norm = torch.stack(list(weights)).norm().item()
            for label, radius in {**{f"{r:g}": r for r in RADII}, f"DARTS' {0.01 / norm:.2g}": 0.01 / norm}.items():
                found = check.accuracy({"name": "finite_difference", "radius": radius})
                numbers = (found.response_cosine, found.response_error, found.cosine, found.error)
                table.add_row(str(k), label, *(f"{number:.4f}" for number in numbers))
        levels.step(k)
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", choices=SPACES, default="darts", help="which supernet (default darts)")
    parser.add_argument(
        "--only", default="", metavar="NAME", help="only methods whose names hold this, and first order"
    )
    parser.add_argument("--evaluation", choices=("plain", "planned"), default="plain", help="default plain")
    parser.add_argument("--memory", choices=("keep", "checkpoint"), default="keep", help="default keep")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of steps (default 5)")
    parser.add_argument("--channels", type=int, default=16, help="width of the supernet (default 16)")
    parser.add_argument("--cells", type=int, default=8, help="cells of the DARTS supernet (default 8)")
    parser.add_argument("--batch", type=int, default=16, help="images in a batch, for DARTS (default 16)")
    parser.add_argument("--crop", type=int, default=64, help="height and width of crops, for TMICS (default 64)")
    parser.add_argument("--along", type=int, metavar="STEPS", help="measure finite differences along so many steps")
    parser.add_argument("--double", action="store_true", help="compute in double precision")
    arguments = parser.parse_args()
    size = {"darts": f"{arguments.cells} cells, batch {arguments.batch}", "tmics": f"crop {arguments.crop}"}
    what = f"{arguments.space}: {arguments.channels} channels, {size[arguments.space]}"
    precision = "float64" if arguments.double else "float32"
    how_run = f"{arguments.evaluation}, memory {arguments.memory}, {precision}, {torch.get_num_threads()} threads"
    print(f"{what}, {how_run}, torch {torch.__version__}")
    if arguments.along is not None:
        along(arguments)
    else:
        costs(arguments)


if __name__ == "__main__":
    main()
