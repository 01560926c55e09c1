"""Candidate operations: registered factories, and named sets of them written in Python or YAML."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from nas.errors import ConfigError, InvalidFileError, UnknownNameError
from nas.files import convert, parse_yaml, read_text
from nas.registry import arguments, kind

if TYPE_CHECKING:
    from torch import nn

Factory = Callable[..., "nn.Module"]
F = TypeVar("F", bound=Factory)


def operation(name: str) -> Callable[[F], F]:
    """Decorator: register a factory of candidate operations under `name`, so that YAML files can name it.

    It is short for `@nas.register("operation", name)`. Positional arguments of the factory (usually `channels`) come
    from the search space, keyword arguments from the file.

    Raises:
        ConfigError: a factory from another origin has the name.

    Example:
        >>> @nas.operation("pointwise")
        ... def pointwise(channels, *, bias: bool = False):
        ...     return nn.Conv2d(channels, channels, 1, bias=bias)
        >>> candidates = nas.OperationSet.of({"pointwise": {"factory": "pointwise", "bias": True}})
    """
    if not isinstance(name, str):
        raise ConfigError("@operation must be given a name; write @operation('name') above the function")
    return kind("operation").register(name)


def registered_operations() -> Mapping[str, Factory]:
    """Return the known factories by name."""
    return dict(kind("operation").working())


def sets() -> Mapping[str, OperationSet]:
    """Return the known sets of candidate operations by name."""
    return dict(kind("operation set").working())


def factory(name: str) -> Factory:
    """Return the factory of this name; raises `UnknownNameError`."""
    found: Factory = kind("operation").find(name)
    return found


class Bound(functools.partial):  # type: ignore[type-arg]  # cannot be subscripted at run time
    """A candidate operation with the arguments of a space, of which the first is its number of channels."""

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        change = _channels.get()
        if change is None:
            return super().__call__(*args, **kwargs)
        first, *others = (*self.args, *args)
        return self.func(change(first), *others, **{**self.keywords, **kwargs})


_channels: ContextVar[Callable[[int], int] | None] = ContextVar("channels", default=None)


@contextmanager
def changed_channels(change: Callable[[int], int]) -> Iterator[None]:
    """Inside, candidates that `OperationSet.bind` bound are built with `change(channels)` channels."""
    token = _channels.set(change)
    try:
        yield
    finally:
        _channels.reset(token)


class OperationSet(Mapping[str, Factory]):
    """Named candidate operations, in order: the candidates of a micro decision.

    Example:
        >>> operations = nas.OperationSet({"skip": lambda channels: nn.Identity()})
        >>> @operations.add
        ... def conv_3x3(channels):
        ...     return nn.Conv2d(channels, channels, 3, padding=1)
        >>> list(operations.bind(16))  # the candidates of `choose`, with 16 channels
        ['skip', 'conv_3x3']
    """

    def __init__(self, candidates: Mapping[str, Factory] | None = None) -> None:
        if not isinstance(candidates, Mapping | None):
            raise ConfigError(
                "a set of candidate operations must be made of a mapping of names to functions, got"
                f" {type(candidates).__name__}; write OperationSet({{'name': function}})"
            )
        self._candidates = dict(candidates or {})
        for name, make in self._candidates.items():
            _require_factory(name, make)

    def add(self, factory: F) -> F:
        """Decorator: add a factory under its own name.

        Raises:
            ConfigError: the set has this name already, or `factory` is not a function.
        """
        name = getattr(factory, "__name__", type(factory).__name__)
        _require_factory(name, factory)
        if name in self._candidates:
            raise ConfigError(f"candidate operations must have unique names, got '{name}' again ({', '.join(self)})")
        self._candidates[name] = factory
        return factory

    def bind(self, *args: Any, **kwargs: Any) -> dict[str, Callable[[], nn.Module]]:
        """Bind all candidates to the same arguments.

        Returns:
            Functions without arguments, by name: the candidates of `choose`.

        Raises:
            ConfigError: a candidate does not take these arguments.
        """
        for name, make in self.items():
            if problem := misfit(make, *args, **kwargs):
                given = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
                raise ConfigError(
                    f"candidate operation '{name}' must take the arguments of the space, ({given}): {problem}."
                    " `nas show SPACE` prints the arguments of a space"
                )
        return {name: Bound(make, *args, **kwargs) for name, make in self.items()}

    def only(self, *names: str) -> OperationSet:
        """Return the set of the named candidates, in the given order; raises `UnknownNameError`."""
        return OperationSet({name: self[name] for name in names})

    def without(self, *names: str) -> OperationSet:
        """Return the set without the named candidates; raises `UnknownNameError`."""
        dropped = {name: self[name] for name in names}
        return OperationSet({name: make for name, make in self.items() if name not in dropped})

    def __or__(self, other: Mapping[str, Factory]) -> OperationSet:
        """Return the union; for a name in both sets, the candidate of `other`."""
        return OperationSet({**self._candidates, **OperationSet(other)})

    def __getitem__(self, name: str) -> Factory:
        if not isinstance(name, str) or name not in self._candidates:
            raise UnknownNameError("candidate operation", name, self._candidates)
        return self._candidates[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._candidates)

    def __len__(self) -> int:
        return len(self._candidates)

    def __repr__(self) -> str:
        return f"OperationSet({', '.join(self)})"

    def register(self, name: str) -> OperationSet:
        """Register the set under a name, for configurations and genotypes.

        Returns:
            The set itself.

        Raises:
            ConfigError: a set from another origin has this name.
        """
        module = sys._getframe(1).f_globals.get("__name__", "")
        kind("operation set").add(name, self, f"{module}:{name}")
        return self

    @classmethod
    def of(cls, value: OperationSet | str | Mapping[str, Any]) -> OperationSet:
        """Return the set that a value describes.

        Args:
            value: a set, the name of a registered set, the path of a YAML file, a mapping of names to factories, or a
                mapping in the form of `operations` in a YAML file.

        Raises:
            UnknownNameError: no set has this name.
            InvalidFileError: a file or mapping has another form.
        """
        if isinstance(value, OperationSet):
            return value
        if isinstance(value, Mapping) and any(map(callable, value.values())):
            return cls(value)
        if isinstance(value, Mapping):
            return cls._parse({"operations": value}, "operation set")
        if isinstance(value, str) and value.endswith((".yaml", ".yml")):
            return cls.load(value)
        found: OperationSet = kind("operation set").find(value)
        return found

    def plain(self) -> str | dict[str, dict[str, Any]]:
        """Return the set as plain data, from which `OperationSet.of` makes an equal set.

        Returns:
            The registered name, or a mapping in the form of `operations` in a YAML file.

        Raises:
            ConfigError: neither the set nor its factories are registered.
        """
        if known := kind("operation set").name_of(self):
            return known
        entries: dict[str, dict[str, Any]] = {}
        name_of = kind("operation").name_of
        for name, make in self.items():
            function, arguments = make, {}
            if isinstance(make, functools.partial) and name_of(make) is None and not make.args:
                function, arguments = make.func, make.keywords
            if (registered := name_of(function)) is None:
                raise ConfigError(
                    f"candidate operation '{name}' must be registered, so that genotypes can name it. Register the set"
                    " (`OperationSet(...).register(NAME)`) or its factory (`@nas.operation(NAME)`)"
                )
            entries[name] = {"factory": registered, **arguments}
        return entries

    @classmethod
    def load(cls, path: str | Path) -> OperationSet:
        """Read a set from YAML: candidate names, each with a registered `factory` and its keyword arguments.

        ```yaml
        operations:
          residual_7x7: {factory: residual, kernel: 7}
        ```

        Raises:
            InvalidFileError: the file has another form, or names an unknown factory or argument.
        """
        return cls._parse(parse_yaml(read_text(path), str(path)), str(path))

    @classmethod
    def _parse(cls, data: Any, where: str) -> OperationSet:
        entries = convert(data, _File, where).operations
        if not entries:
            raise InvalidFileError(f"{where}: 'operations' must have at least one candidate, got none")
        return cls({name: _configured(f"{where}: operations.{name}", entry) for name, entry in entries.items()})


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    operations: dict[str, dict[str, Any]]


def _configured(where: str, entry: dict[str, Any]) -> Factory:
    """The factory of an entry, with the keyword arguments that it states; the space gives the positional ones."""
    if "factory" not in entry:
        raise InvalidFileError(f"{where}: missing the field 'factory': the name of a registered operation")
    name, stated = str(entry["factory"]), {key: value for key, value in entry.items() if key != "factory"}
    try:
        make = factory(name)
        positional = (
            p.name
            for p in inspect.signature(make).parameters.values()
            if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty
        )
        given = arguments(make, stated, where, tuple(positional), f"operation '{name}'", complete=False)
    except UnknownNameError as error:
        raise InvalidFileError(f"{where}: {error}") from error
    except ConfigError as error:
        raise InvalidFileError(str(error)) from error
    return functools.partial(make, **given) if given else make


def _require_factory(name: object, make: object) -> None:
    """Raise `ConfigError` if a factory is not callable, or is itself a module."""
    module = hasattr(make, "register_forward_hook") and not isinstance(make, type)  # needs no import of torch
    if not callable(make) or module:
        raise ConfigError(
            f"candidate operation '{name}' must be a function that returns a module, got {type(make).__name__}. Write"
            f" '{name}': lambda channels: ..."
        )


def misfit(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Return the reason why a function cannot be called with these arguments.

    Returns:
        The reason; empty if there is none, or if the function has no known signature.
    """
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        return str(error)
    except ValueError as error:  # a partial of more arguments than its function has, or a function written in C
        return str(error) if isinstance(function, functools.partial) else ""
    return ""
