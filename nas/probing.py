"""What it takes to evaluate a model without a trace: its mode, its buffers and the random numbers as they were."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def in_mode(model: nn.Module, mode: str, modules: Sequence[nn.Module] | None = None) -> Iterator[None]:
    """Run in `train` or `eval` mode, and leave the model as it was; `modules` are its own, where they are known."""
    modules = list(model.modules()) if modules is None else modules
    if all(module.training == (mode == "train") for module in modules):
        yield
        return
    before = {module: module.training for module in modules}
    model.train(mode == "train")
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def replayed(devices: Sequence[torch.device]) -> Callable[[], AbstractContextManager[None]]:
    """A context, to enter at any time, in which the random numbers are those that would be drawn now, on the CPU and on
    these CUDA devices."""
    cpu, cuda = torch.get_rng_state(), [torch.cuda.get_rng_state(device) for device in devices]

    @contextmanager
    def replay() -> Iterator[None]:
        with torch.random.fork_rng(devices):
            torch.set_rng_state(cpu)
            for device, state in zip(devices, cuda, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield

    return replay


_discarded: ContextVar[bool] = ContextVar("discarded", default=False)


@contextmanager
def discarding() -> Iterator[None]:
    """In this context no one reads what becomes of buffers, so that they need not move."""
    token = _discarded.set(True)
    try:
        yield
    finally:
        _discarded.reset(token)


def buffers_move() -> bool:
    """Whether what an evaluation makes of its buffers is kept."""
    return not _discarded.get()


Places = Sequence[tuple[str, dict[str, Any], str]]
"""Where tensors lie: the name of each, a module's table of parameters or buffers, and its name there; a tied tensor
lies at several."""


def places(tensors: Mapping[str, Tensor], modules: Iterable[nn.Module]) -> Places:
    """Where in these modules the parameters and buffers of these names lie."""
    names = {id(tensor): name for name, tensor in tensors.items()}
    tables = (table for module in modules for table in (module._parameters, module._buffers))
    return [(names[id(t)], table, key) for table in tables for key, t in table.items() if id(t) in names]


@contextmanager
def replaced(places: Places, values: Mapping[str, Tensor]) -> Iterator[None]:
    """In this context the values, by name, lie at these places.

    What `torch.func.functional_call` does, without looking for every place at every call.
    """
    before = [table[key] for _, table, key in places]
    try:
        for name, table, key in places:
            table[key] = values[name]
        yield
    finally:
        for (_, table, key), tensor in zip(places, before, strict=True):
            table[key] = tensor


@contextmanager
def unmoved(places: Places) -> Iterator[None]:
    """In this context modules have copies of the buffers at these places, which are thrown away."""
    with replaced(places, copied({name: table[key] for name, table, key in places})), discarding():
        yield


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies by the same names; on a graphics processor by few kernels, however many tensors there are."""
    copies = {name: torch.empty_like(tensor) for name, tensor in tensors.items()}
    alike: dict[torch.dtype, list[str]] = defaultdict(list)
    for name, tensor in tensors.items():
        alike[tensor.dtype].append(name)
    for names in alike.values():
        torch._foreach_copy_([copies[name] for name in names], [tensors[name] for name in names])
    return copies
