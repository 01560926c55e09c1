"""What one network costs, in all and module by module: parameters, FLOPs, time on this machine.

FLOPs are those of convolutions, matrix products and attention in eval mode, for the whole batch of the example inputs.
They are counted on the meta device, without values.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from nas.cost.meter import own_flops, own_shares
from nas.errors import UnknownNameError
from nas.genotype.file import Genotype
from nas.space.definition import find_space

Unit = Literal["parameters", "flops"]

CONVENTION = "1 multiply-add = 2 FLOPs"
"""The note beside every number of FLOPs: others count a multiply-add as one."""

WHOLE = "whole network"


def require_unit(unit: Unit) -> Unit:
    """Return a unit of cost; raises `UnknownNameError` if it is none."""
    if unit not in get_args(Unit):
        raise UnknownNameError("unit of cost", unit, get_args(Unit))
    return unit


def measure(network: nn.Module | Genotype, unit: Unit = "parameters", inputs: Sequence[Any] | None = None) -> float:
    """Return the exact cost of a network, or of the network that a genotype of a registered space describes.

    The network stays as it is: FLOPs are counted on a copy without values.

    Args:
        network: the network or genotype.
        unit: `parameters`, or `flops` of one forward pass.
        inputs: example inputs to count FLOPs for; only their shapes and types matter.

    Raises:
        UnknownNameError: the unit or the space is unknown.
        ConfigError: FLOPs need inputs, or the network cannot run on them on the meta device.
    """
    network = _built(network)
    if require_unit(unit) == "parameters":
        return float(sum(parameter.numel() for parameter in network.parameters()))
    return sum(own_flops(copy.deepcopy(network).to("meta"), inputs, (), lambda *_: WHOLE, WHOLE).values())


class Size(NamedTuple):
    """How many parameters a network has; as a text, both numbers if they differ."""

    evaluation: int
    """Without the parts that only training uses: those that a module names in an attribute `training_only`."""
    training: int

    def __str__(self) -> str:
        more = "" if self.evaluation == self.training else f" ({self.training:,} with what only training uses)"
        return f"{self.evaluation:,}{more}"


def size(network: nn.Module | Genotype) -> Size:
    """Return the parameters of a network, or of the network that a genotype of a registered space describes."""
    network = _built(network)
    named = [(module, path) for module in network.modules() for path in getattr(module, "training_only", ())]
    parts = [part for module, path in named if isinstance(part := attrgetter(path)(module), nn.Module)]
    left_out = {parameter for part in parts for parameter in part.parameters()}
    whole = int(measure(network))
    return Size(whole - sum(parameter.numel() for parameter in left_out), whole)


class Row(NamedTuple):
    """One module with everything inside it; FLOPs and time are None if it did not run."""

    module: str
    """Its path, or `WHOLE`."""
    parameters: int
    """Without those that an earlier row has, too."""
    flops: int | None = None
    """For the batch of the inputs, summed over all calls of the module."""
    seconds: float | None = None
    """The median over the runs, each summed over all calls of the module."""


def breakdown(
    network: nn.Module, inputs: Sequence[Tensor] | None = None, *, depth: int = 1, runs: int = 5
) -> list[Row]:
    """Return the cost of the whole network in eval mode, then that of each of its modules.

    FLOPs and times are own shares (see `nas.cost.meter`). Those of the modules add up to those of the whole, except for
    what runs outside of all of them. Each module has one row, at its first path.

    Args:
        network: the network; it stays as it is.
        inputs: example inputs on the network's device; without them only parameters are counted.
        depth: how many levels inside the network the modules are, fewer for a module that holds none. A list of modules
            is no level.
        runs: timed forward passes; one more warms up.

    Raises:
        ConfigError: the network cannot run on the inputs.
    """
    rows, seen = [Row(WHOLE, int(measure(network)))], set[nn.Parameter]()
    for module, path in _paths(network, depth).items():
        own = set(module.parameters()) - seen
        rows.append(Row(path, sum(parameter.numel() for parameter in own)))
        seen |= own
    if inputs is None:
        return rows

    def shares(network: nn.Module, meter: Callable[..., dict[str, float]]) -> dict[str, float]:
        paths = _paths(network, depth)
        found = meter(network, inputs, paths, lambda _, module: paths[module], WHOLE)
        return {**found, WHOLE: sum(found.values())}

    times = [shares(network, own_shares) for _ in range(runs + 1)][1:]
    flops = shares(copy.deepcopy(network).to("meta"), own_flops)
    return [
        row._replace(flops=round(flops[path]), seconds=statistics.median(time[path] for time in times))
        if (path := row.module) in flops
        else row
        for row in rows
    ]


def _paths(network: nn.Module, depth: int) -> dict[nn.Module, str]:
    """The modules that have rows, with the first path of each."""
    found: dict[nn.Module, str] = {}

    def add(module: nn.Module, depth: int, path: str) -> None:
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList | nn.ModuleDict):  # these hold modules, and never run themselves
                add(child, depth, f"{path}{name}.")
            elif depth > 1 and any(True for _ in child.children()):
                add(child, depth - 1, f"{path}{name}.")
            else:
                found.setdefault(child, f"{path}{name}")

    add(network, depth, "")
    return found


def _built(network: nn.Module | Genotype) -> nn.Module:
    """A network as it is, or that of a genotype on the meta device."""
    if isinstance(network, nn.Module):
        return network
    with torch.device("meta"):
        return find_space(network.space).derived(network)
