"""Flow providers by name: modules from two frames to the flow between them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from torch import Tensor, nn

from nas.errors import ConfigError, UnknownNameError

Described = list[Tensor]
"""What a flow knows of frames by themselves, batch first; empty where it knows nothing."""


@runtime_checkable
class Framewise(Protocol):
    """A flow module whose work on single frames can be shared by the pairs, and the windows, that they are part of.

    `forward(a, b)` equals `between(describe(a), describe(b), a.shape[2:])`.
    """

    def describe(self, frames: Tensor) -> Described:
        """What is known of each of the frames `(batch, 3, height, width)`: tensors `(batch, ...)`."""

    def between(self, reference: Described, neighbour: Described, size: Sequence[int]) -> Tensor:
        """The flow between frames of (height, width) `size`, from what is known of both."""


Provider = Callable[..., nn.Module]
P = TypeVar("P", bound=Provider)

_providers: dict[str, Provider] = {}


def flow_provider(name: str) -> Callable[[P], P]:
    """Register a class or function under `name` as a maker of flow modules.

    The module's `forward(reference, neighbour)` takes frames `(batch, 3, height, width)` in [0, 1] and returns a flow
    `(batch, 2, height, width)` in pixels such that `warp(neighbour, flow)` resembles `reference`. Raises `ConfigError`
    where another maker already has the name. A module that is also `Framewise` sees every frame of a film once.
    """

    def register(provider: P) -> P:
        other = _providers.get(name)
        if other is not None and _origin(other) != _origin(provider):
            raise ConfigError(
                f"flow provider '{name}' is registered twice: by {_origin(other)} and by {_origin(provider)}"
            )
        _providers[name] = provider
        return provider

    return register


def flow_providers() -> Mapping[str, Provider]:
    """The registered makers by name."""
    return dict(sorted(_providers.items()))


def make_flow(name: str, **arguments: object) -> nn.Module:
    """The flow module of the provider `name`; raises `UnknownNameError`, or `ConfigError` for arguments it lacks."""
    if name not in _providers:
        hint = "register it with @tmics_space.flow.flow_provider"
        raise UnknownNameError("flow provider", name, sorted(_providers), hint)
    provider = _providers[name]
    try:
        inspect.signature(provider).bind(**arguments)
    except TypeError as error:
        raise ConfigError(f"flow provider '{name}' takes {inspect.signature(provider)}: {error}") from error
    return provider(**arguments)


@flow_provider("zero")
class ZeroFlow(nn.Module):
    """No motion at all: what is left of optical-flow alignment is a stack of frames."""

    def forward(self, reference: Tensor, neighbour: Tensor) -> Tensor:
        return reference.new_zeros(reference.shape[0], 2, *reference.shape[2:])


def _origin(provider: Provider) -> str:
    return f"{provider.__module__}:{provider.__qualname__}"
