"""Search spaces: their registration, options, descriptions and networks."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import msgspec
import torch
from torch import nn

from nas.errors import ConfigError, SpaceError, UnknownNameError
from nas.genotype.decision import Decision
from nas.genotype.file import Genotype
from nas.registry import kind, origin
from nas.space.chooser import Building, Derived, Described, Kept
from nas.space.operations import OperationSet

Function = Callable[..., nn.Module]

RESERVED = ("relaxation", "wrappers", "seed", "evaluation", "memory")
"""The arguments of `Supernet` that are not options of a space."""

_used: WeakValueDictionary[tuple[str, str], SearchSpace] = WeakValueDictionary()
"""The spaces in use, registered or not, by name and origin."""


@dataclass(frozen=True)
class Description:
    """The decisions of a space under given options."""

    space: SearchSpace
    options: dict[str, Any]
    decisions: dict[str, Decision]
    """By label, also those inside candidates."""
    network: nn.Module
    """All candidates as placeholders on the meta device."""


class SearchSpace:
    """A function of `choose` and keyword options that returns an `nn.Module`.

    The decorator `search_space` makes and registers one. Only files need registration: `Supernet` takes any space.

    Args:
        name: of the space; genotypes store it.
        function: takes `choose` and keyword-only options with defaults.

    Raises:
        SpaceError: the function has another signature.

    Example:
        >>> def tiny(choose, /, *, channels: int = 8):
        ...     return choose("operation", {"conv": lambda: nn.Conv2d(channels, channels, 1), "skip": nn.Identity})
        >>> space = nas.SearchSpace("tiny-example", tiny)
        >>> nas.Supernet(space, channels=4).derive().choices
        {'operation': 'conv'}
    """

    def __init__(self, name: str, function: Function) -> None:
        if not isinstance(name, str) or not callable(function) or isinstance(function, nn.Module):
            raise SpaceError(
                "a search space must have a name and a function of `choose`, got"
                f" {type(name).__name__} and {type(function).__name__}. Write @search_space('name') above the function"
            )
        self.name = name
        self.function = function
        self.__doc__ = function.__doc__
        self.__module__, self.__qualname__ = function.__module__, function.__qualname__  # for pickle
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except NameError as error:
            raise SpaceError(
                f"search space '{name}': the annotation '{error.name}' must be known at run time. Import it outside"
                " `if TYPE_CHECKING`"
            ) from error
        self.kept: Kept = {}
        """The candidates that exist, of the decisions that lost some (see `restricted`)."""
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
                    f"search space '{name}': an option must not be an argument of supernets, got '{parameter.name}'."
                    " Rename it"
                )
            self._parameters[parameter.name] = (hints.get(parameter.name, Any), parameter.default)
        _used[name, origin(function)] = self

    def __call__(self, choose: Building | None = None, /, **options: Any) -> nn.Module:
        """Build the network with a chooser.

        Args:
            choose: a chooser.
            options: of the space.

        Returns:
            The network.

        Raises:
            ConfigError: there is no chooser, or the space does not have an option.
            SpaceError: a decision is not well formed, code cannot run on the meta device, or a number is too large.
        """
        if not isinstance(choose, Building):
            given = "".join(f", {name}={value!r}" for name, value in options.items())
            raise ConfigError(
                f"search space '{self.name}' must be called with a chooser, got {choose!r}. For its supernet write"
                f" nas.Supernet({getattr(self.function, '__name__', self.name)}{given})"
            )
        arguments = self._arguments(options)
        try:
            return choose.build(self.function, arguments, self.kept)
        except (RuntimeError, TypeError, OverflowError) as error:
            reason = str(error).partition("\n")[0]
            if re.search(r"\bmeta\b", reason, re.IGNORECASE):
                raise SpaceError(
                    f"search space '{self.name}' must build on the meta device, on which tensors have no values:"
                    f" {reason}. Compute numbers that shape the network without tensors, or with device='cpu'"
                ) from error
            if re.search("overflow|too large", reason, re.IGNORECASE):
                raise SpaceError(
                    f"search space '{self.name}' must have smaller numbers in its options: {reason}"
                ) from error
            raise

    def options(self, **given: Any) -> dict[str, Any]:
        """Return all options as plain data, in the form of a genotype file.

        Args:
            given: values of options; the others have their defaults.

        Raises:
            ConfigError: the space does not have an option, or a value has another type.
            SpaceError: a value cannot be plain data.
        """
        plain = {}
        for name, value in self._arguments(given).items():
            try:
                plain[name] = _plain(value)
            except TypeError as error:
                raise SpaceError(
                    f"option '{name}' of space '{self.name}' must be plain data (numbers, texts, lists, mappings) or an"
                    f" OperationSet, which files can hold, got {value!r}. Give it a name and map names in the space"
                ) from error
        return plain

    def restricted(self, kept: Kept) -> SearchSpace:
        """Return this space with fewer candidates. Its genotypes are genotypes of this space.

        It has the same name, and is not found by it.

        Args:
            kept: by label, the candidates that exist: names, channels or numbers of blocks. Other decisions have all.
        """
        return self._with({**self.kept, **kept})

    @property
    def whole(self) -> SearchSpace:
        """This space with all candidates."""
        return self._with({}) if self.kept else self

    def _with(self, kept: Kept) -> SearchSpace:
        other = object.__new__(SearchSpace)  # not by the constructor, which makes a space known by its name
        other.__dict__.update(self.__dict__)
        other.kept = dict(kept)
        return other

    def require_own(self, genotype: Genotype) -> None:
        """Check that a genotype is of this space.

        Raises:
            SpaceError: it is not, or it is not a genotype.
        """
        if not isinstance(genotype, Genotype):
            raise SpaceError(
                f"space '{self.name}' must be given a genotype, got {type(genotype).__name__}. Write"
                f" Genotype(space='{self.name}', choices=...) or Genotype.load(path)"
            )
        if genotype.space != self.name:
            raise SpaceError(f"the genotype must be of space '{self.name}', got '{genotype.space}'")

    def derived(self, genotype: Genotype, *, seed: int = 0) -> nn.Module:
        """Build the derived network of a genotype.

        Args:
            genotype: of this space.
            seed: of the initial weights.

        Raises:
            SpaceError: the genotype does not fit this space.
            UnknownNameError: a choice names no candidate.
        """
        self.require_own(genotype)
        return self(Derived(genotype, seed), **genotype.options)

    def sample(self, generator: torch.Generator, **options: Any) -> Genotype:
        """Draw a genotype: every decision takes any of its candidates, all equally probable.

        Args:
            generator: the source of random numbers, on the CPU.
            options: of the space.

        Example:
            >>> genotype = nas.find_space("darts").sample(torch.Generator().manual_seed(0), cells=4)
            >>> network = genotype.build()
        """
        from nas.derive.random import choose_randomly

        decisions = self.describe(**options).decisions
        return Genotype(space=self.name, options=self.options(**options), choices=choose_randomly(decisions, generator))

    def describe(self, **options: Any) -> Description:
        """List all decisions of the space without allocating weights.

        Args:
            options: of the space.

        Raises:
            ConfigError: the space does not have an option.
            SpaceError: a decision is not well formed, code cannot run on the meta device, or a number is too large.
        """
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
        return self  # a copy of a supernet has the same space

    def _arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        for name in given:
            if name not in self._parameters:
                raise ConfigError(str(UnknownNameError(f"option of space '{self.name}'", name, self._parameters)))
        arguments = {}
        for name, (annotation, default) in self._parameters.items():
            value = given.get(name, default)
            value = value.tolist() if hasattr(value, "tolist") else value  # of numpy or torch
            try:
                arguments[name] = (
                    OperationSet.of(value) if annotation is OperationSet else msgspec.convert(value, annotation)
                )
            except msgspec.ValidationError as error:
                message = str(error).replace("`", "'")
                raise ConfigError(f"option '{name}' of space '{self.name}': {message} ({value!r})") from error
        return arguments


def search_space(name: str) -> Callable[[Function], SearchSpace]:
    """Decorator: make a function of `choose` and keyword options the search space `name`.

    It is short for `@nas.register("search space", name)`.

    Raises:
        ConfigError: a search space from another origin has the name.
        SpaceError: the function is not of the form of a search space.

    Example:
        >>> @nas.search_space("tiny")
        ... def tiny(choose, /, *, channels: int = 8):
        ...     return choose("operation", {"conv": lambda: nn.Conv2d(channels, channels, 1), "none": nn.Identity})
    """
    if not isinstance(name, str):
        raise SpaceError("@search_space must be given a name; write @search_space('name') above the function")
    decorate: Any = kind("search space").register(name)
    return decorate  # type: ignore[no-any-return]  # the kind makes a space of the function


def spaces() -> dict[str, str]:
    """Return the names of all known search spaces, and where each is from. Imports no plugin."""
    return kind("search space").names()


def find_space(name: str) -> SearchSpace:
    """Return the search space `name`.

    Args:
        name: of a registered space, of an installed plugin's, `module:name` of an imported module, or of a space that
            is in use without being registered.

    Raises:
        UnknownNameError: there is no such space; the message suggests the nearest.
        ConfigError: two spaces have the name, or its entry point cannot be imported or is no search space of its name.

    Example:
        >>> space = nas.find_space("digits")
        >>> genotype = space.sample(torch.Generator().manual_seed(0))
    """
    try:
        found: SearchSpace = kind("search space").find(name)
    except UnknownNameError:
        used = {origin: space for (known, origin), space in list(_used.items()) if known == name}
        if len(used) > 1:
            raise ConfigError(
                f"two search spaces are named '{name}': of {' and of '.join(used)}; register one of them"
            ) from None
        if not used:
            raise
        found = used.popitem()[1]
    return found


def space_named(name: str, value: Any) -> SearchSpace:
    """Return the search space that is known by `name`, of a space or of its function; raises `ConfigError`."""
    if not isinstance(value, SearchSpace):
        return SearchSpace(name, value)
    if value.name != name and ":" not in name:
        raise ConfigError(f"search space '{name}' must be a search space of this name, got {value!r}")
    return value


def _plain(value: Any) -> Any:
    """Convert a value to data that YAML preserves: lists in place of tuples."""
    if isinstance(value, OperationSet):
        return value.plain()
    value = msgspec.to_builtins(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value
