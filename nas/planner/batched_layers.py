"""One layer of several candidates of equal structure, computed at once: their channels side by side in one tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.kernels.evaluation import buffers_move
from nas.kernels.memory_format import channels_last, conv2d, is_last
from nas.kernels.norm import batch_norm
from nas.kernels.torch_internals import foreach_add_, foreach_copy_, foreach_lerp_
from nas.planner.known_layers import CHANNELWISE, Layers, branches, is_channelwise, uses_batch
from nas.space.primitives import Parallel


class Wide:
    """A tensor, and its copies side by side over channels, each made once."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self._copies: dict[int, Tensor] = {1: x}

    def copies(self, count: int) -> Tensor:
        """Return `(batch, count * channels, height, width)`."""
        if count not in self._copies:
            self._copies[count] = torch.cat([self.x] * count, 1)
        return self._copies[count]


Scale = Callable[[int], Tensor]
"""Returns the factors of several candidates, each repeated for a number of channels: `(candidates * channels,)`."""


def run_batched(candidates: Sequence[Layers], x: Wide, scale: Scale | None = None) -> Tensor:
    """Run candidates of equal structure on one input.

    Args:
        candidates: the layers of each.
        x: their common input.
        scale: returns the factors that multiply their outputs.

    Shape:
        x: `(batch, channels, height, width)`
        output: `(batch, candidates * out channels, out height, out width)`
    """
    count = len(candidates)
    narrow: Wide | None = x
    wide = x.x
    *before, last = zip(*candidates, strict=True)
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
            wide = _convolve(layers, narrow.x, 1, factor)  # all kernels on one input
        else:
            wide = _run(layers, narrow.copies(count), factor)
        narrow = None
    return wide


def as_it_is(module: nn.Module, x: Tensor) -> Tensor:
    """Return the output of a module that runs as a whole."""
    if type(module) in CHANNELWISE or not is_last(x):
        return cast(Tensor, module(x))
    with channels_last():
        return cast(Tensor, module(x))


def shared_norm(norms: Sequence[nn.BatchNorm2d], x: Tensor) -> Tensor:
    """Return the common output of norms without affine terms that use the statistics of the batch.

    All of them update their buffers, unless nothing reads these.
    """
    first = norms[0]
    moving = [norm for norm in norms if _moves(norm)]
    mean, var = (torch.zeros_like(_buffer(moving[0].running_mean)) for _ in range(2)) if moving else (None, None)
    out = batch_norm(x, mean, var, None, None, 1.0, first.eps)
    if mean is not None and var is not None:
        momentum = cast(float, first.momentum)
        foreach_lerp_([_buffer(norm.running_mean) for norm in moving], [mean] * len(moving), momentum)
        foreach_lerp_([_buffer(norm.running_var) for norm in moving], [var] * len(moving), momentum)
        _count(moving)
    return out


def _run(layers: Sequence[nn.Module], x: Tensor, scale: Scale | None) -> Tensor:
    """Run one layer of each candidate on channels that lie side by side."""
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
    """Convolve; `x` holds the input of one layer `times` times side by side."""
    first = layers[0]
    weight = _joined([layer.weight for layer in layers])
    bias = None if first.bias is None else _joined([layer.bias for layer in layers])
    if scale is not None:  # the output is linear in weight and bias
        factor = scale(len(first.weight))
        weight = weight * factor.view(-1, 1, 1, 1)
        bias = None if bias is None else bias * factor
    return conv2d(x, weight, bias, first.stride, first.padding, first.dilation, times * first.groups)


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
            foreach_copy_(means, mean.chunk(len(norms)))
            foreach_copy_(vars, var.chunk(len(norms)))
        _count(norms)
    return out


def _parallel(layers: Sequence[nn.Module], x: Wide) -> Tensor:
    """Run the branches of each layer on one input; the outputs of a layer's branches lie together."""
    outputs = [
        run_batched(candidates, x) if candidates[0] else x.copies(len(layers))
        for candidates in zip(*(branches(cast(Parallel, layer)) for layer in layers), strict=True)
    ]
    return torch.cat([torch.unflatten(output, 1, (len(layers), -1)) for output in outputs], 2).flatten(1, 2)


def _scaled(x: Tensor, count: int, scale: Scale) -> Tensor:
    return x * scale(x.shape[1] // count).view(-1, 1, 1)


def _joined(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _moves(norm: nn.BatchNorm2d) -> bool:
    """Return whether an evaluation updates the buffers of a norm."""
    return norm.training and norm.track_running_stats and norm.running_mean is not None and buffers_move()


def _buffer(buffer: Tensor | None) -> Tensor:
    return cast(Tensor, buffer)


def _count(norms: Sequence[nn.BatchNorm2d]) -> None:
    foreach_add_([_buffer(norm.num_batches_tracked) for norm in norms], 1)
