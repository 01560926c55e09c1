"""Exponential moving average of the weights of a network in training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

WARMUP = 10
"""The first averages forget faster: after t steps the decay is at most t / (t + WARMUP)."""


class WeightAverage:
    """Average of a network's weights over its steps, `a <- d a + (1 - d) w` after each step.

    The decay d is `min(decay, t / (t + 10))` after t earlier steps. So the first step's weights start the average, and
    early averages span the last tenth of the steps instead of the random initial weights. Floating-point buffers, such
    as the statistics of batch norms, are averaged too; other buffers are copied.

    Args:
        network: the network; its values at the first `update` start the average.
        decay: in [0, 1); 0.999 averages over about the last 1,000 steps.

    References:
        Polyak and Juditsky, SIAM J. Control Optim. 30(4), 1992; the bound on the decay is that of TensorFlow's
        `ExponentialMovingAverage(num_updates=t)`.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network, self._decay = network, decay
        self._values = {name: tensor.detach().clone() for name, tensor in _tensors(network).items()}

    @torch.no_grad()
    def update(self, before: int) -> None:
        """Include the network's present values.

        Args:
            before: how many steps the average has already; 0 restarts it.
        """
        share = 1 - min(self._decay, before / (before + WARMUP))
        for name, tensor in _tensors(self._network).items():
            average = self._values[name]
            if share == 1 or not tensor.is_floating_point():
                average.copy_(tensor)
            elif not torch.equal(average, tensor):  # else a constant, which may be infinite, such as a mask
                average.lerp_(tensor, share)

    @torch.no_grad()
    def copy_to_network(self) -> None:
        """Give the network the averaged values."""
        for name, tensor in _tensors(self._network).items():
            tensor.copy_(self._values[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A context in which the network has the averaged values; its own ones return at the end."""
        own = {name: tensor.detach().clone() for name, tensor in _tensors(self._network).items()}
        self.copy_to_network()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in _tensors(self._network).items():
                    tensor.copy_(own[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged values by name."""
        return dict(self._values)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        for name, value in self._values.items():
            value.copy_(state[name])


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers that a `state_dict` has."""
    return network.state_dict(keep_vars=True)
