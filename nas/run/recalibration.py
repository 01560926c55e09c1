"""Statistics of batch norms, computed again for a fixed supernet: those of the search are of mixed operations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@contextmanager
def recalibrated(
    network: nn.Module, forward: Callable[[nn.Module, Any], object], batches: Iterable[Any]
) -> Iterator[None]:
    """Inside, the statistics of batch norms are their means over some batches; outside they are as before.

    All other modules stay in eval mode, and no gradient is computed.

    Args:
        network: any network.
        forward: calls the network on a batch.
        batches: of training data; without any, the statistics stay as they are.

    References:
        Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV 2020, section 3.4.
    """
    modes = {module: module.training for module in network.modules()}
    norms = [each for each in modes if isinstance(each, NORMS) and each.track_running_stats]
    before = [(norm.momentum, {name: buffer.clone() for name, buffer in norm.named_buffers()}) for norm in norms]
    try:
        network.eval()
        for norm in norms:
            norm.train()
        with torch.no_grad():
            for index, batch in enumerate(batches):
                for norm in norms:
                    norm.momentum = 1 / (index + 1)  # a plain mean
                forward(network, batch)
        network.eval()
        yield
    finally:
        for norm, (momentum, buffers) in zip(norms, before, strict=True):
            norm.momentum = momentum
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])
        for module, training in modes.items():
            module.training = training
