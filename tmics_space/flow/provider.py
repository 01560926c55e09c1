"""Flow providers by name: modules that map two frames to the flow between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from nas.registry import Kind

Described = list[Tensor]
"""The per-frame features of a flow, batch first; empty if it has none."""


@runtime_checkable
class Framewise(Protocol):
    """A flow module with per-frame features, which pairs and windows of frames can share.

    `forward(a, b)` equals `between(describe(a), describe(b), a.shape[2:])`.
    """

    def describe(self, frames: Tensor) -> Described:
        """Compute the features of frames `(batch, 3, height, width)`: tensors `(batch, ...)`."""

    def between(self, reference: Described, neighbour: Described, size: Sequence[int]) -> Tensor:
        """Compute the flow between frames of (height, width) `size` from their features."""


FLOW_PROVIDERS = Kind("flow provider", "tmics.flow_providers")
"""Classes and functions that make flow modules, for the option `flow` of the space.

The module's `forward(reference, neighbour)` takes frames `(batch, 3, height, width)` in [0, 1] and returns a flow
`(batch, 2, height, width)` in pixels such that `warp(neighbour, flow)` resembles `reference`. If the module is also
`Framewise`, the features of each frame of a film are computed once.

Example:
    >>> @nas.register("flow provider", "still")
    ... class Still(nn.Module):
    ...     def forward(self, reference, neighbour):
    ...         return reference.new_zeros(len(reference), 2, *reference.shape[2:])
"""


def make_flow(name: str, **arguments: object) -> nn.Module:
    """Return the flow module of the provider `name`; raises `UnknownNameError`, or `ConfigError` for an argument."""
    flow: nn.Module = FLOW_PROVIDERS.create({"name": name, **arguments}, "flow")
    return flow


class ZeroFlow(nn.Module):
    """No motion at all: what is left of optical-flow alignment is a stack of frames."""

    def forward(self, reference: Tensor, neighbour: Tensor) -> Tensor:
        return reference.new_zeros(reference.shape[0], 2, *reference.shape[2:])
