"""Activation checkpointing of parts of a network (Chen et al., 2016): their inside is computed again for the gradient.

Exact: the second computation has the parameters, buffers, modes, mixing weights, function modes of torch and random
numbers of the first, whatever has been replaced or moved on since, and moves no buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

from nas.cell import Cell
from nas.mixed import MixedOperation, Node
from nas.probing import discarding

Hold = Callable[[], Callable[[], AbstractContextManager[None]]]
"""Keeps what is outside of a part, the mixing weights, as it is now; what it returns gives that back for a while."""


def checkpointed(network: nn.Module, hold: Hold) -> None:
    """Have every cell, and every mixed operation outside of cells, compute its inside again for the gradient."""
    if isinstance(network, Cell):
        network.evaluation = Checkpointed(network, network.evaluation or network.plain, hold)
    elif isinstance(network, MixedOperation):
        # Where `nn.Module.__call__` looks for it, and no name of a candidate.
        network.__dict__["forward"] = Checkpointed(network, partial(MixedOperation.forward, network), hold)
    else:
        for part in network.children():
            checkpointed(part, hold)


class Checkpointed:
    """Calls `compute`, which computes with the modules of `part`, and calls it again in the backward pass."""

    def __init__(self, part: nn.Module, compute: Callable[..., Any], hold: Hold) -> None:
        self.part = part
        self.compute = compute
        self.hold = hold

    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.compute(*inputs, **keywords)
        again = self._again()
        calls = 0

        def run(*inputs: Any) -> Any:
            nonlocal calls
            calls += 1
            return self.compute(*inputs, **keywords) if calls == 1 else again(inputs, keywords)

        return checkpoint(run, *inputs, use_reentrant=False)

    def _again(self) -> Callable[..., Any]:
        """The computation with everything as it is now, at any later time."""
        whole = _Whole(self.part, self.compute)
        parameters = dict(whole.named_parameters())
        buffers = {name: buffer.clone() for name, buffer in whole.named_buffers()}
        state = [(m, m.training, m.kept if isinstance(m, Node) else ()) for m in self.part.modules()]
        held = self.hold()
        kernels = _modes()

        def again(inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            current: Mapping[str, Tensor] = {name: buffer.clone() for name, buffer in buffers.items()}
            with held(), _restored(state), discarding(), _entered(kernels):
                return functional_call(whole, {**parameters, **current}, inputs, keywords)

        return again


class _Whole(nn.Module):
    """A module around a part, since `functional_call` calls modules."""

    def __init__(self, part: nn.Module, compute: Callable[..., Any]) -> None:
        super().__init__()
        self.part = part
        self.compute = compute

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        return self.compute(*inputs, **keywords)


@contextmanager
def _entered(modes: Sequence[TorchFunctionMode]) -> Iterator[None]:
    """Function modes of torch, each once, such as that which picks differentiable kernels."""
    with ExitStack() as stack:
        for mode in modes:
            if mode not in _modes():
                stack.enter_context(mode)
        yield


def _modes() -> list[TorchFunctionMode]:
    modes: list[TorchFunctionMode] = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    return modes


State = list[tuple[nn.Module, bool, tuple[int, ...]]]


@contextmanager
def _restored(state: State) -> Iterator[None]:
    """The modules in the modes, and the nodes with the in-edges, of `state`."""
    before: State = [(m, m.training, m.kept if isinstance(m, Node) else ()) for m, *_ in state]
    try:
        _restore(state)
        yield
    finally:
        _restore(before)


def _restore(state: State) -> None:
    for module, training, kept in state:
        module.training = training
        if isinstance(module, Node):
            module.kept = kept
