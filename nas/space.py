"""Search spaces: registration, discovery, options, and what is built from them."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any
from weakref import WeakValueDictionary

import msgspec
from torch import nn

from nas import plugins
from nas.choose import Building, Derived, Described
from nas.errors import ConfigError, SpaceError, UnknownNameError
from nas.genotype import Decision, Genotype
from nas.operations import OperationSet

Function = Callable[..., nn.Module]

RESERVED = ("relaxation", "seed", "evaluation", "memory")
"""What `Supernet` takes beside the options of a space."""

_spaces: dict[str, SearchSpace] = {}
_made: WeakValueDictionary[tuple[str, str], SearchSpace] = WeakValueDictionary()
"""The spaces in use, registered or not, by name and origin."""


@dataclass(frozen=True)
class Description:
    """What a space consists of under given options, without a supernet: `network` lives on the meta device."""

    space: SearchSpace
    options: dict[str, Any]
    decisions: dict[str, Decision]
    network: nn.Module


class SearchSpace:
    """A function of `choose` and keyword options that returns an `nn.Module`; see `search_space`."""

    def __init__(self, name: str, function: Function) -> None:
        if not isinstance(name, str) or not callable(function) or isinstance(function, nn.Module):
            raise SpaceError(
                "a search space must have a name and a function of `choose`, got"
                f" {type(name).__name__} and {type(function).__name__}; write @search_space('name') above the function"
            )
        self.name = name
        self.function = function
        self.__doc__ = function.__doc__
        self.__module__, self.__qualname__ = function.__module__, function.__qualname__  # where a decorator leaves it
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except NameError as error:
            raise SpaceError(
                f"search space '{name}': the annotation '{error.name}' is not known when the program runs: import it"
                " outside `if TYPE_CHECKING`"
            ) from error
        self._parameters: dict[str, tuple[Any, Any]] = {}
        first, *others = inspect.signature(function).parameters.values() or (None,)
        if first is None or first.kind is first.KEYWORD_ONLY:
            raise SpaceError(f"search space '{name}': the function's first argument must be `choose`")
        for parameter in others:
            if parameter.kind is not parameter.KEYWORD_ONLY or parameter.default is parameter.empty:
                raise SpaceError(
                    f"search space '{name}': '{parameter.name}' must be a keyword-only option with a default"
                )
            if parameter.name in RESERVED:
                raise SpaceError(
                    f"search space '{name}': '{parameter.name}' is an argument of supernets, not an option"
                )
            self._parameters[parameter.name] = (hints.get(parameter.name, Any), parameter.default)
        _made[name, _origin(function)] = self

    def __call__(self, choose: Building, /, **options: Any) -> nn.Module:
        """Build the network with a chooser.

        Raises:
            ConfigError: an option that the space does not have.
            SpaceError: a decision that is not well formed, or code that cannot run on the meta device.
        """
        arguments = self._arguments(options)
        try:
            return choose.build(self.function, arguments)
        except (RuntimeError, TypeError) as error:
            reason = str(error).partition("\n")[0]
            if not re.search(r"\bmeta\b", reason, re.IGNORECASE):
                raise
            raise SpaceError(
                f"search space '{self.name}' cannot be described, which happens on the meta device, where tensors have"
                f" no values: {reason}. Compute numbers that shape the network without tensors, or with device='cpu'"
            ) from error

    def options(self, **given: Any) -> dict[str, Any]:
        """All options with the given values, in plain data as a genotype file holds them; raises `ConfigError`."""
        plain = {}
        for name, value in self._arguments(given).items():
            try:
                plain[name] = _plain(value)
            except TypeError as error:
                raise SpaceError(
                    f"option '{name}' of space '{self.name}' must be plain data (numbers, texts, lists, mappings) or an"
                    f" OperationSet, which files can hold, got {value!r}; give it a name, and look this up in the space"
                ) from error
        return plain

    def require_own(self, genotype: Genotype) -> None:
        """Raise `SpaceError` for anything but a genotype of this space."""
        if not isinstance(genotype, Genotype):
            raise SpaceError(
                f"space '{self.name}' must be given a genotype, got {type(genotype).__name__}; write"
                f" Genotype(space='{self.name}', choices=...) or Genotype.load(path)"
            )
        if genotype.space != self.name:
            raise SpaceError(f"the genotype is of space '{genotype.space}', expected '{self.name}'")

    def derived(self, genotype: Genotype, *, seed: int = 0) -> nn.Module:
        """The network that `genotype` describes; raises `SpaceError` where it does not fit this space."""
        self.require_own(genotype)
        return self(Derived(genotype, seed), **genotype.options)

    def describe(self, **options: Any) -> Description:
        """Every decision of the space, also those inside candidates, and the network as placeholders."""
        choose = Described()
        network = self(choose, **options)
        return Description(self, self.options(**options), choose.decisions, network)

    def __repr__(self) -> str:
        return f"SearchSpace({self.name!r})"

    def __reduce__(self) -> str | tuple[Any, ...]:
        found: Any = sys.modules.get(self.__module__)
        for part in self.__qualname__.split("."):
            found = getattr(found, part, None)
        return self.__qualname__ if found is self else (SearchSpace, (self.name, self.function))

    def __deepcopy__(self, memo: dict[int, Any]) -> SearchSpace:
        return self  # a copied supernet is of the same space

    def _arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        for name in given:
            if name not in self._parameters:
                raise ConfigError(str(UnknownNameError(f"option of space '{self.name}'", name, self._parameters)))
        arguments = {}
        for name, (kind, default) in self._parameters.items():
            value = given.get(name, default)
            value = value.tolist() if hasattr(value, "tolist") else value  # of numpy or torch
            try:
                arguments[name] = OperationSet.of(value) if kind is OperationSet else msgspec.convert(value, kind)
            except msgspec.ValidationError as error:
                message = str(error).replace("`", "'")
                raise ConfigError(f"option '{name}' of space '{self.name}': {message}, found {value!r}") from error
        return arguments


def search_space(name: str) -> Callable[[Function], SearchSpace]:
    """Decorator: make a function of `choose` and keyword options the search space `name`.

    >>> @search_space("tiny")
    ... def tiny(choose, /, *, channels: int = 8):
    ...     return choose("operation", {"conv": lambda: nn.Conv2d(channels, channels, 1), "none": nn.Identity})

    Raises `ConfigError` where another space already has the name.
    """

    def register(function: Function) -> SearchSpace:
        space = SearchSpace(name, function)
        other = _spaces.get(name)
        if other is not None and _origin(other.function) != _origin(function):
            raise ConfigError(
                f"search space '{name}' is registered twice: by {_origin(other.function)} and by {_origin(function)}"
            )
        _spaces[name] = space
        return space

    if not isinstance(name, str):
        raise SpaceError("@search_space must be given a name; write @search_space('name') above the function")
    return register


def spaces() -> dict[str, str]:
    """The names of all known search spaces and where each comes from; installed plugins are not imported for it."""
    known = {point.name: f"{point.value} (entry point)" for point in _entry_points()}
    known.update({name: _origin(space.function) for name, space in _spaces.items()})
    return dict(sorted(known.items()))


def find_space(name: str) -> SearchSpace:
    """The search space `name`: registered, an installed plugin's entry point, or `module:name` of an imported module.

    One that is not registered is found by its name as long as it is in use.

    Raises `UnknownNameError` with the nearest name, `ConfigError` for a name claimed twice and for an entry point that
    cannot be imported or is no search space of its name.
    """
    if not isinstance(name, str):
        raise UnknownNameError("search space", name, spaces())
    points = [point for point in _entry_points() if point.name == name]
    if len({point.value for point in points}) > 1:
        claims = " and by ".join(f"{point.value} of {point.dist.name if point.dist else '?'}" for point in points)
        raise ConfigError(f"search space '{name}' is registered twice: by {claims}")
    if points:
        plugin = plugins.load(points[0], "search space")
        if not isinstance(plugin, SearchSpace) or plugin.name != name:
            raise ConfigError(
                f"entry point '{name}' is {points[0].value}, {plugin!r}, expected a search space '{name}'"
            )
        return plugin
    module, _, attribute = name.partition(":")
    if attribute and module in sys.modules:
        found = getattr(sys.modules[module], attribute, None)
        if isinstance(found, SearchSpace):
            return found
    if name not in _spaces:
        made = {origin: space for (known, origin), space in list(_made.items()) if known == name}
        if len(made) > 1:
            raise ConfigError(f"two search spaces are named '{name}': of {' and of '.join(made)}; register one of them")
        if made:
            return made.popitem()[1]
        hint = "register it with @nas.search_space, and load its module with --import MODULE"
        raise UnknownNameError("search space", name, spaces(), hint)
    return _spaces[name]


def _entry_points() -> list[metadata.EntryPoint]:
    return list(metadata.entry_points(group="nas.search_spaces"))


def _plain(value: Any) -> Any:
    """What YAML gives back as it was, so with lists in place of tuples."""
    if isinstance(value, OperationSet):
        return value.plain()
    value = msgspec.to_builtins(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def _origin(function: Function) -> str:
    return f"{function.__module__}:{function.__qualname__}"
