"""What functions with gradients of their own have in common: how they are called, and what their gradients ask."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import Function, forward_ad


def call(function: type[Function], *arguments: Any) -> Any:
    """`function.apply(*arguments)`, in a fraction of the time.

    torch binds them to the signature of `forward` at every call, which takes longer than to compute a small image.
    """
    if torch.compiler.is_compiling():  # it finds the gradient by itself, and knows no function with a `jvp`
        return function.forward(*arguments)
    if torch._C._are_functorch_transforms_active():
        return function.apply(*arguments)  # type: ignore[no-untyped-call]  # torch has no types here
    if torch.is_grad_enabled() or forward_ad._current_level >= 0:
        return super(Function, function).apply(*arguments)  # type: ignore[misc]  # of torch's base in C++
    return function.forward(*arguments)


def asked(ctx: Any, count: int) -> list[bool]:
    """Which gradients of the first `count` inputs, all tensors, the running backward pass asks for.

    `ctx.needs_input_grad` says which of them could be asked for: all that require a gradient.
    """
    return [node is not None and _runs(node) for node, _ in ctx.next_functions[:count]]


def _runs(node: Any) -> bool:
    try:
        found: bool = torch._C._will_engine_execute_node(node)
    except RuntimeError:  # an input of `torch.autograd.grad`: nothing runs, but its gradient is handed over
        return True
    return found
