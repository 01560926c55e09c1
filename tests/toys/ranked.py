"""Functions on several ranks, which are forked from a server that has imported torch, and small searches in float64."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas.distributed.ranks import (
    alone,
    any_rank,
    count,
    each,
    gathered,
    joined,
    of_first,
    rank,
    require_equal,
    traffic,
)
from nas.distributed.share import Share
from nas.errors import ConfigError, DivergedError, RankError
from nas.files import convert
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.space.cell import Cell
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace
from nas.space.primitives import NAS_BENCH_201, DropPath
from nas.supernet import Supernet

_CONTEXT = multiprocessing.get_context("forkserver")

BATCH = 5
"""Samples: an odd number, so that two ranks have unequal shares."""


def on_ranks(function: Callable[..., Any], *arguments: Any, number: int = 2) -> list[Any]:
    """Return what a function returns on each rank; fails with the traceback of the first rank that fails."""
    results = _CONTEXT.SimpleQueue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = (number, port, results, function, arguments)
    workers = [_CONTEXT.Process(target=_rank, args=(place, *given)) for place in range(number)]
    for worker in workers:
        worker.start()
    found = dict(results.get() for _ in workers)
    for worker in workers:
        worker.join()
    for place, (_, error) in sorted(found.items()):
        assert not error, f"rank {place}:\n{error}"
    return [found[place][0] for place in range(number)]


def _rank(place: int, number: int, port: int, results: Any, function: Callable[..., Any], arguments: Any) -> None:
    os.environ |= {
        "RANK": str(place),
        "LOCAL_RANK": str(place),
        "WORLD_SIZE": str(number),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        with joined():
            value = function(*arguments)
        results.put((place, (value, "")))
    except BaseException:
        results.put((place, (None, traceback.format_exc())))
        raise


CANDIDATES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(3, 3),
    "skip_connect": nn.Identity,
    "smooth": lambda: nn.Sequential(nn.Linear(3, 3), nn.SiLU()),
}


def vectors(choose: Chooser, /) -> nn.Module:
    """A network without batch norm or dropout."""
    return nn.Sequential(nn.Linear(3, 3), choose("first", CANDIDATES), choose("second", CANDIDATES))


def noisy(choose: Chooser, /) -> nn.Module:
    """A network of images with what looks across samples: batch norm, inside of a cell and outside, and dropout."""
    operations = NAS_BENCH_201.without("none", "nor_conv_3x3").bind(2, affine=True)
    dropped = {name: partial(_dropped, make) for name, make in operations.items()}
    cell = Cell(choose, "cell", dropped, nodes=2, inputs=1, output="last")
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), cell, nn.Dropout2d(0.2), nn.Flatten(), nn.Dropout(0.2))


def _dropped(make: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(make(), DropPath(0.3))


SPACES = {"vectors": SearchSpace("vectors", vectors), "noisy": SearchSpace("noisy", noisy)}
SHAPES: dict[str, tuple[int, ...]] = {"vectors": (3,), "noisy": (1, 3, 3)}


def fit(net: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    loss: Tensor = (net(x) - y).square().mean()
    return loss


def batch_of(space: str, split: str, index: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets of samples that differ much, so that the shares of ranks have other gradients."""
    generator = torch.Generator().manual_seed(2 * index + (split == "val"))
    x = torch.randn(BATCH, *SHAPES[space], generator=generator, dtype=torch.float64)
    target = x.flatten(1).cos() if space == "vectors" else torch.cat([x, -x], 1).flatten(1)
    return x, target + 2 * torch.arange(BATCH)[:, None]


def engine(
    method: str | Mapping[str, Any] = "first_order",
    *,
    space: str = "vectors",
    lower: Mapping[str, Any] = {},
    upper: Mapping[str, Any] | None = {},
    synchronized: bool = False,
    batch: Callable[[str, int], Any] | None = None,
    **supernet: Any,
) -> Multilevel:
    """The levels of a search; only the lower one if `upper` is None."""
    entry = {"name": method} if isinstance(method, str) else method
    levels: dict[str, dict[str, Any]] = {
        "lower": {
            "parameters": ["network.2.linear.*"] if entry["name"] == "closed" else ["network.*"],
            "split": "train",
            "optimizer": {"name": "adam", "lr": 0.05},
            "clip": 1.0,
            **lower,
        }
    }
    if upper is not None:
        levels["upper"] = {
            "parameters": ["arch.*"],
            "split": "val",
            "optimizer": {"name": "sgd", "lr": 0.5},
            "hypergradient": {"lower": entry},
            "regularizers": [{"name": "beta_decay", "weight": 0.1}],
            **upper,
        }
    typed = {name: convert({"loss": "fit", **level}, Level, name) for name, level in levels.items()}
    net = Supernet(SPACES[space], seed=1, **supernet).double()
    batch = batch or partial(batch_of, space)
    return Multilevel(net, typed, {"fit": fit}, batch, 10, synchronized=synchronized)


def searched(steps: int = 2, **case: Any) -> tuple[Tensor, dict[str, Any]]:
    """All values of the network after some steps, and the genotype."""
    torch.manual_seed(0)
    levels = engine(**case)
    moved = [levels.step(k) for k in range(steps)]
    values = [each.detach().double().flatten() for each in levels.model.state_dict().values()]
    losses = [torch.tensor([move.loss for move in moved[-1].values()]).double()]
    return torch.cat([*losses, *values]), dict(levels.model.derive().choices)


class Compared(NamedTuple):
    """A case on all ranks, beside the same case on one."""

    error: float
    """The largest difference of a number, relative to it if it is above 1."""
    equal: bool
    """Whether all ranks have the same bits."""
    same_genotype: bool
    refused: str = ""
    """Why one rank cannot compute the case."""


def compared(cases: Mapping[str, Mapping[str, Any]]) -> dict[str, Compared]:
    """Each case on all ranks, and on one; ranks take turns at the latter."""
    return {name: _compared(cases[name], *expected) for name, *expected in each(partial(_alone, cases), cases)}


def _alone(cases: Mapping[str, Mapping[str, Any]], name: str) -> tuple[str, Tensor | None, dict[str, Any], str]:
    try:
        return name, *searched(**cases[name]), ""
    except ConfigError as error:
        return name, None, {}, str(error)


def _compared(case: Mapping[str, Any], expected: Tensor | None, choices: Mapping[str, Any], refused: str) -> Compared:
    if expected is None:
        return Compared(0.0, True, True, refused)
    own, found = searched(**case)
    error = ((own - expected).abs() / expected.abs().clamp_min(1.0)).max().item()
    return Compared(error, all(torch.equal(other, own) for other in gathered(own)), found == choices)


def averaged_by_ranks(method: str | Mapping[str, Any]) -> list[list[float]]:
    """The hypergradient of one rank, that of all ranks, and the mean of those that ranks compute of their shares."""
    share = Share.own(BATCH)

    def own(split: str, index: int) -> tuple[Tensor, Tensor]:
        x, y = batch_of("vectors", split, index)
        return x[share.begin : share.end], y[share.begin : share.end]

    def gradient(**case: Any) -> Tensor:
        return torch.cat([*engine(method, **case).gradient("upper", 0)[1].values()])

    with alone():
        expected, local = gradient(), gradient(batch=own)
    averaged = torch.stack(gathered(share.weight * local)).sum(0)
    return [vector.tolist() for vector in (expected, gradient(), averaged)]


def told() -> dict[str, Any]:
    """What ranks tell one another, and how they fail together."""

    def fails() -> None:
        raise ConfigError("only rank 0 says so")

    found: dict[str, Any] = {"first": of_first(lambda: {"rank": rank(), "numbers": torch.arange(3)})}
    found["first"]["numbers"] = found["first"]["numbers"].tolist()
    try:
        of_first(fails)
    except ConfigError as error:
        found["error"] = str(error)
    found["each"] = each(lambda item: (item, rank(), count()), iter("abcde"))
    found["any"] = any_rank(rank() == 1, False)
    require_equal([torch.ones(2)], "here")
    try:
        require_equal([torch.full((2,), float(rank()))], "there")
    except RankError as error:
        found["differ"] = str(error)
    try:
        Share.own(1)
    except ConfigError as error:
        found["few"] = str(error)
    found["shares"] = [Share.of(number, 5) for number in range(count())]
    return found


def diverging() -> tuple[str, int]:
    """The error of a search whose batches are not finite in the last sample, which rank 0 does not have."""

    def batch(split: str, index: int) -> tuple[Tensor, Tensor]:
        x, y = batch_of("vectors", split, index)
        if index:
            y[-1] = torch.nan
        return x, y

    levels = engine(batch=batch, lower={"patience": 2})
    try:
        for k in range(4):
            levels.step(k)
    except DivergedError as error:
        return str(error), levels.skipped["lower"]
    return "", 0


def traffic_of(method: str | Mapping[str, Any]) -> tuple[int, int]:
    """Sums over ranks and bytes of one step of the upper level alone."""
    levels = engine(method)
    before = traffic.calls, traffic.bytes
    levels.gradient("upper", 0)
    return traffic.calls - before[0], traffic.bytes - before[1]


def everything(cases: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The results of all functions above, so that one pair of processes is enough."""
    return {
        "compared": compared(cases),
        "averaged": {name: averaged_by_ranks(name) for name in ("first_order", "gauss_newton")},
        "told": told(),
        "diverging": diverging(),
        "traffic": {name: traffic_of(name) for name in ("first_order", "gauss_newton", "unrolled")},
        "seconds": sum(os.times()[:2]),
    }
