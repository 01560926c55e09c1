"""The parts of a search that act on its supernet, for the check of their combination."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from nas.declarations import LEARNED, SAME_CANDIDATES, Declaration, Part, declaration_of
from nas.errors import ConfigError
from nas.multilevel.level import Level
from nas.registry import kind
from nas.supernet import Supernet


def parts_of(
    model: nn.Module,
    levels: Mapping[str, Level],
    owned: Mapping[str, Sequence[str]],
    optimizers: Mapping[str, Optimizer],
) -> Iterator[Part]:
    """Yield the relaxation and the wrappers of a supernet, its levels and their regularizers; nothing without one.

    A level that owns arch parameters needs logits that are learned. A level below that responds to another by more than
    first order must compute the same candidates as that one.

    Args:
        model: any network.
        levels: by name.
        owned: the parameters of each level.
        optimizers: of each level.

    Raises:
        ConfigError: an optimizer that moves arch parameters alone has others, or a response reuses the gradient of a
            step with perturbed mixing weights.
    """
    if not isinstance(model, Supernet):
        return
    yield from model.parts()
    for level, config in levels.items():
        if any(parameter.startswith("arch.") for parameter in owned[level]):
            yield Part(f"level '{level}'", Declaration(frozenset({"logits"}), frozenset({"logits"}), _only(LEARNED)))
        yield _optimizer(level, optimizers[level], owned[level])
        if isinstance(config.freezing, Mapping):  # the level has completed it
            name = config.freezing["name"]
            yield Part(f"level '{level}': freezing '{name}'", declaration_of(kind("freezing").find(name)))
        for below, method in config.hypergradient.items():
            if method["name"] != "first_order":
                where = f"level '{level}': hypergradient.{below} ({method['name']})"
                yield Part(where, Declaration(needs=_only(SAME_CANDIDATES)))
                if method.get("reuse"):
                    _require_unperturbed(model, where)
        for number, term in enumerate(config.regularizers):
            function: Any = kind("regularizer").find(term["name"])
            yield Part(f"level '{level}': regularizers[{number}] ({term['name']})", declaration_of(function))


def _optimizer(level: str, optimizer: Optimizer, owned: Sequence[str]) -> Part:
    made = type(optimizer)
    name = kind("optimizer").name_of(made) or made.__name__
    part = Part(f"level '{level}': optimizer '{name}'", declaration_of(made))
    others = [parameter for parameter in owned if not parameter.startswith("arch.")]
    if "logits" in part.declaration.writes and others:
        raise ConfigError(f"{part.what} must be given arch parameters alone, got '{others[0]}'")
    return part


def _require_unperturbed(supernet: Supernet, where: str) -> None:
    """Raise `ConfigError` if steps of operation weights have other mixing weights than a response that reuses them."""
    for part, wrapper in zip(supernet.parts()[1:], supernet.wrappers, strict=True):
        if wrapper.perturbs:
            raise ConfigError(f"{where}.reuse must be false with {part.what}, which changes these steps, got true")


def _only(fact: str) -> frozenset[str]:
    return frozenset({fact})
