"""Activation checkpointing of cells and mixed operations: the backward pass recomputes their intermediate results.

Results are exact. The recomputation uses the parameters, buffers, modes, mixing weights, function modes of PyTorch and
random numbers of the first computation, whatever has changed since, and updates no buffer.

References:
    Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from nas.kernels.evaluation import discarding
from nas.kernels.torch_internals import active_modes
from nas.space.cell import Cell
from nas.space.mixed import MixedOperation, Node

Hold = Callable[[], Callable[[], AbstractContextManager[None]]]
"""Captures the mixing weights; returns a context manager that restores them."""


def checkpoint_activations(network: nn.Module, hold: Hold) -> None:
    """Make every cell, and every mixed operation outside of cells, recompute its intermediate results."""
    if isinstance(network, Cell):
        network.evaluation = Checkpointed(network, network.evaluation or network.plain, hold)
    elif isinstance(network, MixedOperation):
        # `nn.Module.__call__` finds it there, and it is not the name of a candidate.
        network.__dict__["forward"] = Checkpointed(network, partial(type(network).forward, network), hold)
    else:
        for part in network.children():
            checkpoint_activations(part, hold)


class Checkpointed:
    """Calls `compute`, a computation with the modules of `part`, and calls it again in the backward pass."""

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
        """Return the computation with the present state, for any later time."""
        whole = _Whole(self.part, self.compute)
        parameters = dict(whole.named_parameters())
        buffers = {name: buffer.clone() for name, buffer in whole.named_buffers()}
        state = [(m, m.training, m.kept if isinstance(m, Node) else ()) for m in self.part.modules()]
        held = self.hold()
        kernels = active_modes()

        def again(inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            current: Mapping[str, Tensor] = {name: buffer.clone() for name, buffer in buffers.items()}
            with held(), _restored(state), discarding(), _entered(kernels):
                return functional_call(whole, {**parameters, **current}, inputs, keywords)

        return again


class _Whole(nn.Module):
    """Module around a part, since `functional_call` calls modules."""

    def __init__(self, part: nn.Module, compute: Callable[..., Any]) -> None:
        super().__init__()
        self.part = part
        self.compute = compute

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        return self.compute(*inputs, **keywords)


@contextmanager
def _entered(modes: Sequence[TorchFunctionMode]) -> Iterator[None]:
    """Enter those function modes of PyTorch that are not active, such as that of `twice_differentiable`."""
    with ExitStack() as stack:
        for mode in modes:
            if mode not in active_modes():
                stack.enter_context(mode)
        yield


State = list[tuple[nn.Module, bool, tuple[int, ...]]]


@contextmanager
def _restored(state: State) -> Iterator[None]:
    """Give modules the modes, and nodes the in-edges, of `state` inside of the context."""
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
