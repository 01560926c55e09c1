"""The object that conformance tests check: by its name, by an entry of a configuration, or as a function."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nas.kernels.torch_internals import tree_leaves
from nas.registry import kind, takes

Subject = str | Mapping[str, Any] | Callable[..., Any]
"""A registered name, a mapping of `name` and arguments, or a function or class that makes the object."""


def made(kind_name: str, subject: Subject, *passed: Any, **given: Any) -> Any:
    """Make an object as the package makes it.

    Args:
        kind_name: the kind of the object, for a subject that is a name or a mapping.
        subject: names the object.
        passed: arguments that the package passes by position.
        given: arguments that the package passes by name, to functions whose signature has them.
    """
    if isinstance(subject, str | Mapping):
        return kind(kind_name).create(subject, kind_name, *passed, **given)
    return subject(*passed, **{name: given[name] for name in takes(subject, given)})


@contextmanager
def unchanged(what: str, network: nn.Module | None = None) -> Iterator[None]:
    """Assert that the block changes neither torch's random state nor the state, gradients or modes of a network."""
    modules = dict(network.named_modules()) if network is not None else {}
    parameters = dict(network.named_parameters()) if network is not None else {}
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()} if network is not None else {}
    modes = {name: module.training for name, module in modules.items()}
    gradients = {name: p.grad for name, p in parameters.items()}
    random = torch.get_rng_state()
    yield
    assert torch.equal(random, torch.get_rng_state()), f"{what} must not draw from torch's global random state"
    for name, tensor in state.items():
        now = network.state_dict()[name] if network is not None else tensor
        assert torch.equal(tensor, now), f"{what} must not change '{name}' of the network"
    for name, module in modules.items():
        assert module.training == modes[name], f"{what} must not change the mode (train or eval) of '{name}'"
    for name, p in parameters.items():
        assert p.grad is gradients[name], f"{what} must not set the attribute `grad` of '{name}'"


def reloaded(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state after it was saved and loaded as a checkpoint is."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def tensors(value: Any) -> list[Tensor]:
    """Return every tensor in nested tuples, lists and dictionaries."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
