"""How autograd functions are called, and which gradients the current backward pass needs from them."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import Function

from nas.kernels import torch_internals as internals


def call(function: type[Function], *arguments: Any) -> Any:
    """Return `function.apply(*arguments)`, in a fraction of the time.

    The function must have a `forward` without context, and a `setup_context`.
    """
    if torch.compiler.is_compiling():  # the compiler derives the gradient itself, and accepts no function with a `jvp`
        return function.forward(*arguments)
    if internals.transforms_active():
        return function.apply(*arguments)  # type: ignore[no-untyped-call]  # torch has no types here
    if torch.is_grad_enabled() or internals.in_forward_mode():
        return internals.apply(function, *arguments)
    return function.forward(*arguments)


def asked(ctx: Any, count: int) -> list[bool]:
    """Return which gradients of the first `count` inputs, all tensors, the current backward pass needs.

    `ctx.needs_input_grad` is true for every input that requires a gradient.
    """
    return [node is not None and _runs(node) for node, _ in ctx.next_functions[:count]]


def _runs(node: Any) -> bool:
    try:
        return internals.will_run(node)
    except RuntimeError:  # an input of `torch.autograd.grad`: nothing runs, and its gradient is handed over
        return True
