"""Layers that look across the samples of a batch, or draw numbers for them: batch norm and dropout.

Dropout draws its numbers for the whole batch on every rank, and applies those of the rank's own samples. So several
ranks drop what one would. Batch norm uses the samples of its rank alone, as in `DistributedDataParallel`, unless it is
synchronized.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode

from nas.distributed.ranks import count, rank
from nas.distributed.reduction import spread, summed
from nas.distributed.share import Share

_current: ContextVar[WholeBatch | None] = ContextVar("whole_batch", default=None)


class WholeBatch(TorchFunctionMode):
    """Inside, dropout draws for the whole batch, and batch norm is computed over it if it is `synchronized`.

    Args:
        share: the samples of this rank.
        synchronized: whether batch norms use the samples of all ranks.
    """

    def __init__(self, share: Share, synchronized: bool) -> None:
        super().__init__()
        self.share, self.synchronized = share, synchronized
        self._outer: list[WholeBatch | None] = []

    def __enter__(self) -> WholeBatch:
        self._outer.append(_current.get())
        _current.set(self)
        super().__enter__()  # type: ignore[no-untyped-call]  # torch has no types here
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        _current.set(self._outer.pop())

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            return _dropped(self.share, func, *args, **kwargs)
        if func is F.batch_norm and self.synchronized:
            return _normalized(*args, **kwargs)
        return func(*args, **kwargs)


def is_synchronized() -> bool:
    """Return whether batch norms use the samples of all ranks now."""
    current = _current.get()
    return current is not None and current.synchronized and count() > 1


def uniform(like: Tensor, generator: Generator) -> Tensor:
    """Draw numbers in [0, 1) in the shape of a tensor whose first dimension are samples: its part of those of the whole
    batch."""
    rows = _rows(like)
    drawn = torch.rand((rows.samples, *like.shape[1:]), generator=generator, device=like.device)
    return drawn[rows.begin : rows.end]


def synchronized_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """Compute `F.batch_norm` in training mode over the samples of all ranks, differentiable to any order.

    Each rank sends the mean and the variance of its samples; their joint variance is that of Chan et al.
    (Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979).

    Raises:
        ValueError: the whole batch has one value per channel.

    Shape:
        x and output: `(batch, channels, ...)`
    """
    rows = _rows(x)
    wide = x if x.dtype == torch.float64 else x.float()
    over = [0, *range(2, x.dim())]
    values = x.numel() // x.shape[1] // len(x) * rows.samples
    if values == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(x.shape)}")
    own = torch.stack(torch.var_mean(wide, over, correction=0))
    table = torch.stack([own if number == rank() else torch.zeros_like(own) for number in range(count())])
    table = spread({"": summed(table)[0]})[""]
    shares = wide.new_tensor([Share.of(number, rows.samples).weight for number in range(count())])[:, None]
    variances, means = table.unbind(1)
    mean = (shares * means).sum(0)
    variance = (shares * (variances + (means - mean).square())).sum(0)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_((variance * (values / (values - 1))).to(running_var), momentum)
    form = (-1, *(1 for _ in over[1:]))
    scale = (variance + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    out = (wide - mean.view(form)) * scale.view(form)
    return (out if bias is None else out + bias.view(form)).to(x.dtype)


def _normalized(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training or count() == 1:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    return synchronized_norm(x, running_mean, running_var, weight, bias, momentum, eps)


def _rows(x: Tensor) -> Share:
    """The share of a tensor's rows; all of them if this process computes alone."""
    current = _current.get()
    rows = None if current is None or count() == 1 else current.share.rows(len(x))
    return Share(0, len(x), len(x)) if rows is None else rows


def _dropped(
    share: Share,
    function: Callable[..., Tensor],
    x: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Tensor:
    rows = share.rows(len(x)) if x.dim() else None
    if not training or rows is None or count() == 1:
        return function(x, p, training, inplace)
    alike = _DROPOUTS[function]
    kept = 2 if (x.dim(), alike) == (3, 2) else x.dim() - alike  # torch takes them for (batch, channels, length)
    ones = x.new_ones((rows.samples, *x.shape[1:kept], *(1 for _ in x.shape[kept:])))
    if not alike and x.dim() == 4 and not x.is_contiguous():  # numbers are drawn in the order of the memory
        ones = ones.contiguous(memory_format=torch.channels_last)
    factor = function(ones, p, True)[rows.begin : rows.end]
    return x.mul_(factor) if inplace else x * factor


_DROPOUTS: dict[Callable[..., Tensor], int] = {F.dropout: 0, F.dropout1d: 1, F.dropout2d: 2, F.dropout3d: 3}
"""The functions whose numbers are drawn for the whole batch, and how many of the last dimensions share a number."""


@contextmanager
def seen_as_whole(share: Share, synchronized: bool) -> Iterator[None]:
    """Enter `WholeBatch` if there are several ranks."""
    if count() == 1:
        yield
        return
    with WholeBatch(share, synchronized):
        yield
