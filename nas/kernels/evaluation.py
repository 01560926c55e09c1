"""Evaluation of a model without side effects: its mode, buffers and random numbers stay as they were."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from nas.kernels.torch_internals import foreach_copy_, tables_of


@contextmanager
def in_mode(model: nn.Module, mode: str, modules: Sequence[nn.Module] | None = None) -> Iterator[None]:
    """Set a model to a mode inside of the context, and restore the mode of each module at the end.

    Args:
        model: the model.
        mode: "train" or "eval".
        modules: all modules of the model, if the caller has listed them already.
    """
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
    """Capture the random state of the CPU and of CUDA devices; return a function whose contexts restore it."""
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
    """State that nothing reads the buffers that evaluations inside of the context would update."""
    token = _discarded.set(True)
    try:
        yield
    finally:
        _discarded.reset(token)


def buffers_move() -> bool:
    """Return whether the updates of buffers are kept, which they are outside of `discarding`."""
    return not _discarded.get()


Places = Sequence[tuple[str, dict[str, Any], str]]
"""Places of tensors: a tensor's name, a module's table of parameters or buffers, and the name in this table.

A tied tensor has several places."""


def places(tensors: Mapping[str, Tensor], modules: Iterable[nn.Module]) -> Places:
    """Return the places of named parameters and buffers in modules."""
    names = {id(tensor): name for name, tensor in tensors.items()}
    tables = (table for module in modules for table in tables_of(module)[:2])
    return [(names[id(t)], table, key) for table in tables for key, t in table.items() if id(t) in names]


@contextmanager
def replaced(places: Places, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Put values, by name, at places inside of the context.

    `torch.func.functional_call` does the same, but searches for every place at every call.
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
    """Replace the buffers at places by copies inside of the context, and discard these at the end."""
    with replaced(places, copied({name: table[key] for name, table, key in places})), discarding():
        yield


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies by the same names; on a GPU few kernels make all of them."""
    copies = {name: torch.empty_like(tensor) for name, tensor in tensors.items()}
    alike: dict[torch.dtype, list[str]] = defaultdict(list)
    for name, tensor in tensors.items():
        alike[tensor.dtype].append(name)
    for names in alike.values():
        foreach_copy_([copies[name] for name in names], [tensors[name] for name in names])
    return copies
