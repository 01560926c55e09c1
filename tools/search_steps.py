"""Search steps of supernets on random images, by levels of the engine or by a plain loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.kernels import native
from nas.kernels.memory_format import channels_last
from nas.multilevel.level import Level, Precision
from nas.multilevel.multilevel import Multilevel
from nas.space.definition import SearchSpace
from nas.space.mixed import Decided
from nas.supernet import Supernet
from reference import HandNetwork
from search_spaces.darts import darts_space

Run = Callable[[], object]
Batch = tuple[Tensor, Tensor]


class Where(NamedTuple):
    """Device, batch size, and height and width of the images."""

    device: str = "cpu"
    size: int = 16
    side: int = 32


Make = Callable[[Where], Run]


def images(split: str, index: int, where: Where) -> Batch:
    """`(size, 3, side, side)` and labels."""
    generator = torch.Generator().manual_seed(2 * index + (split == "val"))
    pictures = torch.randn(where.size, 3, where.side, where.side, generator=generator)
    return pictures.to(where.device), torch.randint(0, 10, (where.size,), generator=generator).to(where.device)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def by_hand(model: nn.Module, arch: list[nn.Parameter], where: Where) -> Run:
    """A first-order step as in the published code: all gradients, twice."""
    names = set(map(id, arch))
    upper = torch.optim.Adam(arch, 3e-4)
    lower = torch.optim.SGD([p for p in model.parameters() if id(p) not in names], 0.025, 0.9)
    data = {split: images(split, 0, where) for split in ("train", "val")}

    def step() -> None:
        for optimizer, split in ((upper, "val"), (lower, "train")):
            optimizer.zero_grad()
            loss(model, data[split]).backward()
            optimizer.step()

    return step


def by_levels(
    where: Where,
    space: SearchSpace = darts_space,
    response: str = "first_order",
    *,
    precision: Precision = "float32",
    kernel: bool = False,
    only: str = "",
    **arguments: Any,
) -> Run:
    """A search step of the engine; `kernel`: with the C++ kernel; `only`: of this level alone."""
    supernet = Supernet(space, **arguments).to(where.device)
    if only:
        for parameter in supernet.weights() if only == "upper" else supernet.logits():
            parameter.requires_grad_(False)
    lower = Level(
        parameters=("network.*",), loss="loss", split="train", optimizer={"name": "sgd", "lr": 0.025, "momentum": 0.9}
    )
    upper = Level(
        parameters=("arch.*",),
        loss="loss",
        split="val",
        optimizer={"name": "adam", "lr": 3e-4},
        hypergradient={} if only else {"lower": {"name": response}},
    )
    both = {"lower": lower, "upper": upper}
    data = {split: images(split, 0, where) for split in ("train", "val")}
    levels = Multilevel(
        supernet,
        {only: both[only]} if only else both,
        {"loss": loss},
        lambda split, _: data[split],
        1000,
        precision=precision,
    )
    steps = iter(range(1000))

    def step() -> None:
        native.enabled = kernel
        levels.step(next(steps))

    return step


def plainly(where: Where, space: SearchSpace) -> Run:
    """A first-order step of the plain evaluation, with every gradient."""
    supernet = Supernet(space, evaluation="plain").to(where.device)
    return by_hand(supernet, list(supernet.arch.values()), where)


def hand_written(where: Where) -> Run:
    """A first-order step of the DARTS network written by hand."""
    network = HandNetwork().to(where.device)
    return by_hand(network, network.arch(), where)


def path_alone(where: Where, space: SearchSpace, only: str, **options: Any) -> Run:
    """A step of one level by hand, of the network of a single path alone; a logit is a factor of a candidate's output.

    Images lie channels last, as in the engine.
    """
    network = space.derived(Supernet(space, **options).derive()).to(where.device)
    moving, batch = list(network.parameters()), images("val" if only == "upper" else "train", 0, where)
    optimizer: torch.optim.Optimizer = torch.optim.SGD(moving, 0.025, 0.9)
    if only == "upper":
        moving = [multiplied(module) for module in network.modules() if type(module) is Decided]
        optimizer = torch.optim.Adam(moving, 3e-4)

    def step() -> None:
        with channels_last(network):
            gradients = torch.autograd.grad(loss(network, batch), moving)
        for parameter, gradient in zip(moving, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()

    return step


def multiplied(module: nn.Module) -> nn.Parameter:
    """Multiply the outputs of a module by a parameter from now on; returns it."""
    factor = nn.Parameter(next(module.parameters()).new_ones(()))
    module.register_forward_hook(lambda _, inputs, output: output * factor)
    return factor
