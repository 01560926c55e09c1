"""What the modules of a network cost, one by one: parameters, floating-point operations, time on this machine."""

from __future__ import annotations

import copy
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas.errors import ConfigError

WHOLE = "whole network"


class Row(NamedTuple):
    """One module with all inside it; FLOPs and time are None where the network runs its parts in some other way."""

    module: str
    """Its path, or `WHOLE`."""
    parameters: int
    flops: int | None = None
    """For the batch of the inputs; 1 multiply-add = 2 FLOPs, counted as `nas.cost` does."""
    seconds: float | None = None
    """The median over the runs; of a module that runs several times, all of them."""


def breakdown(
    network: nn.Module, inputs: Sequence[Tensor] | None = None, *, depth: int = 1, runs: int = 5
) -> list[Row]:
    """The cost of each module of a network in eval mode, and of the whole.

    The modules are those `depth` levels inside the network, or less where nothing is inside; a list of modules is no
    level of its own. Their FLOPs and times add up to those of the whole but for what the modules around them compute.

    Args:
        inputs: example inputs on the network's device; without them only parameters are counted.
        runs: forward passes that are timed, after one that is not.

    Raises `ConfigError` where the network cannot run on the inputs.
    """
    modules = {WHOLE: network, **dict(_modules(network, depth))}
    parameters = {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}
    if inputs is None:
        return [Row(name, count) for name, count in parameters.items()]
    training = network.training
    network.eval()
    try:
        seconds = [_spent(modules, inputs, time.perf_counter) for _ in range(runs + 1)][1:]
    finally:
        network.train(training)
    flops = _flops(network, inputs, depth)
    return [
        Row(name, count, round(flops[name]), statistics.median(run[name] for run in seconds))
        if name in flops
        else Row(name, count)
        for name, count in parameters.items()
    ]


def _modules(module: nn.Module, depth: int, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        inside = f"{path}{name}"
        if isinstance(child, nn.ModuleList | nn.ModuleDict):  # they hold modules, and never run themselves
            yield from _modules(child, depth, f"{inside}.")
        elif depth > 1 and any(True for _ in child.children()):
            yield from _modules(child, depth - 1, f"{inside}.")
        else:
            yield inside, child


def _flops(network: nn.Module, inputs: Sequence[Tensor], depth: int) -> dict[str, float]:
    """The FLOPs of each module, counted without values on the meta device."""
    ghost = copy.deepcopy(network).to("meta").eval()
    with FlopCounterMode(display=False) as counter:
        modules = {WHOLE: ghost, **dict(_modules(ghost, depth))}
        return _spent(modules, [tensor.to("meta") for tensor in inputs], counter.get_total_flops)


def _spent(modules: dict[str, nn.Module], inputs: Sequence[Tensor], clock: Callable[[], float]) -> dict[str, float]:
    """How far the clock goes inside each module in one forward pass of the whole."""
    spent: dict[str, float] = defaultdict(float)
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        starts: list[float] = []

        def stop(*_: object) -> None:
            spent[name] += clock() - starts.pop()

        handles.append(module.register_forward_pre_hook(lambda *_: starts.append(clock())))
        handles.append(module.register_forward_hook(stop))

    for name, module in modules.items():
        watch(name, module)
    try:
        with torch.no_grad():
            modules[WHOLE](*inputs)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        shapes = ", ".join("x".join(map(str, tensor.shape)) for tensor in inputs)
        raise ConfigError(f"the network cannot run on {shapes}: {str(error).partition(chr(10))[0]}") from error
    finally:
        for handle in handles:
            handle.remove()
    return spent
