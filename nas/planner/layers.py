"""How one layer runs for several candidates of equal structure at once: their channels side by side in one tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.planner.depthwise import depthwise
from nas.planner.layout import channels_last, conv2d, is_last, taken
from nas.planner.norm import batch_norm
from nas.planner.structure import CHANNELWISE, Chain, branches, is_channelwise, uses_batch
from nas.primitives import Parallel
from nas.probing import buffers_move


class Wide:
    """A tensor and copies of it side by side over channels, each made once."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self._copies: dict[int, Tensor] = {1: x}

    def copies(self, count: int) -> Tensor:
        """`(batch, count * channels, height, width)`"""
        if count not in self._copies:
            self._copies[count] = torch.cat([self.x] * count, 1)
        return self._copies[count]


Scale = Callable[[int], Tensor]
"""The factors of several candidates, each repeated for a number of channels: shape `(candidates * channels,)`."""


def run_chains(chains: Sequence[Chain], x: Wide, scale: Scale | None = None) -> Tensor:
    """Run chains of equal structure on one input `(batch, channels, height, width)`.

    Returns their outputs side by side, `(batch, len(chains) * out channels, ...)`; `scale` multiplies the output of
    each.
    """
    count = len(chains)
    narrow: Wide | None = x
    wide = x.x
    *before, last = zip(*chains, strict=True)
    for layers in (*before, last):
        factor = scale if layers is last else None
        if narrow is not None and is_channelwise(layers[0]) and layers is not last:
            narrow = Wide(as_it_is(layers[0], narrow.x))
            continue
        if narrow is None:
            wide = _run(layers, wide, factor)
        elif isinstance(layers[0], Parallel):
            wide = _parallel(layers, narrow)
            wide = wide if factor is None else _scaled(wide, count, factor)
        elif isinstance(layers[0], nn.Conv2d) and layers[0].groups == 1:
            wide = _convolve(layers, narrow.x, 1, factor)  # all kernels on the one input
        else:
            wide = _run(layers, narrow.copies(count), factor)
        narrow = None
    return wide


def as_it_is(module: nn.Module, x: Tensor) -> Tensor:
    """What a module returns, called as it is."""
    if type(module) in CHANNELWISE or not is_last(x):
        return cast(Tensor, module(x))
    with channels_last():
        return cast(Tensor, module(x))


def shared_norm(norms: Sequence[nn.BatchNorm2d], x: Tensor) -> Tensor:
    """What each of these norms, without affine terms and by the statistics of the batch, makes of the same input.

    All of them move their buffers, where anyone reads them.
    """
    first = norms[0]
    moving = [norm for norm in norms if _moves(norm)]
    mean, var = (torch.zeros_like(_buffer(moving[0].running_mean)) for _ in range(2)) if moving else (None, None)
    out = batch_norm(x, mean, var, None, None, 1.0, first.eps)
    if mean is not None and var is not None:
        momentum = cast(float, first.momentum)
        torch._foreach_lerp_([_buffer(norm.running_mean) for norm in moving], [mean] * len(moving), momentum)
        torch._foreach_lerp_([_buffer(norm.running_var) for norm in moving], [var] * len(moving), momentum)
        _count(moving)
    return out


def _run(layers: Sequence[nn.Module], x: Tensor, scale: Scale | None) -> Tensor:
    """One layer of each candidate on channels that stand side by side."""
    if isinstance(layers[0], nn.Conv2d):
        return _convolve(layers, x, len(layers), scale)
    if isinstance(layers[0], nn.BatchNorm2d):
        return _normalize(cast(Sequence[nn.BatchNorm2d], layers), x, scale)
    if isinstance(layers[0], Parallel):
        parts = zip(layers, x.chunk(len(layers), 1), strict=True)
        x = torch.cat([_parallel([layer], Wide(part)) for layer, part in parts], 1)
    else:
        x = as_it_is(layers[0], x)
    return x if scale is None else _scaled(x, len(layers), scale)


def _convolve(layers: Sequence[Any], x: Tensor, times: int, scale: Scale | None) -> Tensor:
    """Convolve; `times` is how often the input of one layer stands side by side in `x`."""
    first = layers[0]
    weight = _joined([layer.weight for layer in layers])
    bias = None if first.bias is None else _joined([layer.bias for layer in layers])
    if scale is not None:  # the output is linear in both
        factor = scale(len(first.weight))
        weight = weight * factor.view(-1, 1, 1, 1)
        bias = None if bias is None else bias * factor
    if _is_depthwise(first) and x.is_cpu and not torch.is_autocast_enabled("cpu"):
        x = _depthwise(first, x, weight)
        return x if bias is None else x + bias.view(-1, 1, 1)
    return conv2d(x, weight, bias, first.stride, first.padding, first.dilation, times * first.groups)


def _is_depthwise(layer: nn.Conv2d) -> bool:
    """Whether `_depthwise` can do what the layer does."""
    channels, inner, *kernel = layer.weight.shape
    if isinstance(layer.padding, str) or not (layer.groups == channels > inner == 1):
        return False
    geometry = zip(layer.stride, layer.padding, layer.dilation, kernel, strict=True)
    return all(p % s == d % s == 0 and p <= d * (k - 1) for s, p, d, k in geometry)


def _depthwise(layer: nn.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    (s, t), (p, q), (d, e) = layer.stride, cast(tuple[int, int], layer.padding), layer.dilation
    if (s, t) != (1, 1):  # a kernel dilated by the stride meets every s-th row and t-th column alone
        x = taken(x, s, t)
    return depthwise(x, weight, (p // s, q // t), (d // s, e // t))


def _normalize(norms: Sequence[nn.BatchNorm2d], x: Tensor, scale: Scale | None) -> Tensor:
    first, channels = norms[0], norms[0].num_features
    weight = bias = mean = var = None
    if first.weight is not None:
        weight, bias = _joined([norm.weight for norm in norms]), _joined([norm.bias for norm in norms])
    if scale is not None:
        factor = scale(channels)
        weight = factor if weight is None else weight * factor
        bias = None if bias is None else bias * factor
    moving = _moves(first)
    if moving or not uses_batch(first):
        means, vars = [_buffer(norm.running_mean) for norm in norms], [_buffer(norm.running_var) for norm in norms]
        mean, var = _joined(means), _joined(vars)
    if uses_batch(first):
        out = batch_norm(x, mean, var, weight, bias, cast(float, first.momentum), first.eps)
    else:
        out = F.batch_norm(x, mean, var, weight, bias, False, 0.0, first.eps)
    if moving:
        if mean is not None and var is not None and len(norms) > 1:
            torch._foreach_copy_(means, mean.chunk(len(norms)))
            torch._foreach_copy_(vars, var.chunk(len(norms)))
        _count(norms)
    return out


def _parallel(layers: Sequence[nn.Module], x: Wide) -> Tensor:
    """Branches of each layer on one input; what a layer's branches return stands together."""
    outputs = [
        run_chains(chains, x) if chains[0] else x.copies(len(layers))
        for chains in zip(*(branches(cast(Parallel, layer)) for layer in layers), strict=True)
    ]
    return torch.cat([torch.unflatten(output, 1, (len(layers), -1)) for output in outputs], 2).flatten(1, 2)


def _scaled(x: Tensor, count: int, scale: Scale) -> Tensor:
    return x * scale(x.shape[1] // count).view(-1, 1, 1)


def _joined(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _moves(norm: nn.BatchNorm2d) -> bool:
    """Whether a pass moves the buffers of a norm."""
    return norm.training and norm.track_running_stats and norm.running_mean is not None and buffers_move()


def _buffer(buffer: Tensor | None) -> Tensor:
    return cast(Tensor, buffer)


def _count(norms: Sequence[nn.BatchNorm2d]) -> None:
    torch._foreach_add_([_buffer(norm.num_batches_tracked) for norm in norms], 1)
