"""The two operators between ranks: each is the other's derivative, so that derivatives of any order are right.

The weights `w` are the same on every rank, and rank `r` computes the loss `f_r(w)` of its share of a batch. The loss of
the whole batch is

    f(w) = summed(c_r f_r(spread(w)))        c_r: the rank's share of the samples

`spread` gives a copy to every rank, and `summed` adds what ranks have. Both are linear, and each is the adjoint of the
other: what returns through `spread` in a backward pass is summed, and what returns through `summed` is spread. So a
gradient is complete, and equal on all ranks, before any expression reads it, and so is the gradient of a gradient. A
method for hypergradients needs to know nothing of ranks.

Averages of finished hypergradients are another thing: a quotient such as that of `gauss_newton` is not linear in the
gradients of the ranks.

The operators are those of tensor parallelism (Shoeybi et al., Megatron-LM, arXiv:1909.08053, 2019, sec. 3, f and g).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from nas.distributed.ranks import count, sum_over_ranks


def spread(tensors: Mapping[str, Tensor], groups: Sequence[Collection[str]] = ()) -> dict[str, Tensor]:
    """Return the same tensors; what returns to them in a backward pass is summed over ranks.

    Tensors without a gradient stay as they are. In one process all do.

    Args:
        tensors: equal on all ranks, by name.
        groups: names whose gradients are often needed without those of others. Each group is summed in one operation,
            and so are the tensors in no group.
    """
    found = dict(tensors)
    if count() == 1:
        return found
    rest = {name for name, tensor in found.items() if tensor.requires_grad}
    for group in (*groups, tuple(found)):
        names = [name for name in found if name in rest and name in group]
        if names:
            found.update(zip(names, _apply(_Spread, [found[name] for name in names]), strict=True))
            rest -= {*names}
    return found


def summed(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the sums of tensors over ranks; what returns to them in a backward pass is equal on all ranks."""
    return tensors if count() == 1 else _apply(_Summed, tensors)


class _Spread(Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return _applied(_Summed, gradients)


class _Summed(Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        found: dict[int, Tensor] = {}
        alike: dict[tuple[torch.dtype, torch.device], list[int]] = defaultdict(list)
        for i, tensor in enumerate(tensors):
            alike[tensor.dtype, tensor.device].append(i)
        for places in alike.values():
            flat = sum_over_ranks(torch.cat([tensors[i].reshape(-1) for i in places]))
            pieces = torch.split(flat, [tensors[i].numel() for i in places])
            found |= {i: piece.view(tensors[i].shape) for i, piece in zip(places, pieces, strict=True)}
        return tuple(found[i] for i in range(len(tensors)))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return _applied(_Spread, gradients)


def _apply(function: type[Function], tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = function.apply(*tensors)  # type: ignore[no-untyped-call]  # torch has no types here
    return found


def _applied(function: type[Function], tensors: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """The function of those tensors that there are; None in the places of the others."""
    given = iter(_apply(function, [tensor for tensor in tensors if tensor is not None]))
    return tuple(None if tensor is None else next(given) for tensor in tensors)
