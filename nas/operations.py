"""Candidate operations: registered factories, and named sets of them written in Python or YAML."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from nas.errors import ConfigError, InvalidFileError, UnknownNameError
from nas.files import convert, parse_yaml, read_text

if TYPE_CHECKING:
    from torch import nn

Factory = Callable[..., "nn.Module"]
F = TypeVar("F", bound=Factory)

_factories: dict[str, Factory] = {}
_sets: dict[str, OperationSet] = {}


def operation(name: str) -> Callable[[F], F]:
    """Register a factory of candidate operations under `name`, so that YAML files can refer to it.

    The factory's positional arguments (usually `channels`) come from the search space, its keyword arguments from
    the file. Raises `ConfigError` where another factory already has the name.
    """

    if not isinstance(name, str):
        raise ConfigError("@operation must be given a name; write @operation('name') above the function")

    def register(factory: F) -> F:
        _require_factory(name, factory)
        other = _factories.get(name)
        if other is not None and _origin(other) != _origin(factory):
            raise ConfigError(f"operation '{name}' is registered twice: by {_origin(other)} and by {_origin(factory)}")
        _factories[name] = factory
        return factory

    return register


def operations() -> Mapping[str, Factory]:
    """The registered factories by name, those of `nas.primitives` among them."""
    _register_primitives()
    return dict(sorted(_factories.items()))


def sets() -> Mapping[str, OperationSet]:
    """The registered sets of candidate operations by name, those of `nas.primitives` among them."""
    _register_primitives()
    return dict(sorted(_sets.items()))


def factory(name: str) -> Factory:
    """The factory registered under `name`; raises `UnknownNameError`."""
    _register_primitives()
    if name not in _factories:
        hint = "register it with @nas.operation, and load its module with --import MODULE"
        raise UnknownNameError("operation", name, sorted(_factories), hint)
    return _factories[name]


class OperationSet(Mapping[str, Factory]):
    """Named candidate operations, in order: the candidates of a micro decision.

    >>> OPERATIONS = OperationSet().register("mine")
    >>> @OPERATIONS.add
    ... def conv_3x3(channels): return nn.Conv2d(channels, channels, 3, padding=1)
    >>> choose("cell/1", OPERATIONS.bind(16))
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
        """Decorator: add `factory` under its own name. Raises `ConfigError` where the name is taken."""
        name = getattr(factory, "__name__", type(factory).__name__)
        _require_factory(name, factory)
        if name in self._candidates:
            raise ConfigError(f"candidate operation '{name}' is already in the set ({', '.join(self)})")
        self._candidates[name] = factory
        return factory

    def bind(self, *args: Any, **kwargs: Any) -> dict[str, Callable[[], nn.Module]]:
        """The candidates as functions without arguments, each bound to the same arguments.

        Raises `ConfigError` for a candidate that does not take them.
        """
        for name, make in self.items():
            if problem := misfit(make, *args, **kwargs):
                given = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
                raise ConfigError(
                    f"candidate operation '{name}' does not fit the space, which calls it with ({given}): {problem};"
                    " `nas show SPACE` says what a space passes"
                )
        return {name: functools.partial(make, *args, **kwargs) for name, make in self.items()}

    def only(self, *names: str) -> OperationSet:
        """The set of the named candidates, in the order given; raises `UnknownNameError`."""
        return OperationSet({name: self[name] for name in names})

    def without(self, *names: str) -> OperationSet:
        """The set less the named candidates; raises `UnknownNameError`."""
        dropped = {name: self[name] for name in names}
        return OperationSet({name: make for name, make in self.items() if name not in dropped})

    def __or__(self, other: Mapping[str, Factory]) -> OperationSet:
        """Both sets; where a name is in both, `other` wins."""
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
        """Make the set known by `name`, for configurations and genotypes; raises `ConfigError` where it is taken."""
        other = _sets.get(name)
        if other is not None and {n: _origin(f) for n, f in other.items()} != {n: _origin(f) for n, f in self.items()}:
            raise ConfigError(f"operation set '{name}' is registered twice: {other} and {self}")
        _sets[name] = self
        return self

    @classmethod
    def of(cls, value: OperationSet | str | Mapping[str, Any]) -> OperationSet:
        """The set itself, or the one registered by name, in a YAML file, or in a mapping like a file's `operations`.

        A mapping may also have the factories themselves.

        Raises `UnknownNameError` for a name that is neither registered nor the path of a YAML file.
        """
        if isinstance(value, OperationSet):
            return value
        if isinstance(value, Mapping) and any(map(callable, value.values())):
            return cls(value)
        if isinstance(value, Mapping):
            return cls._parse({"operations": value}, "operation set")
        _register_primitives()
        if isinstance(value, str) and value in _sets:
            return _sets[value]
        if isinstance(value, str) and value.endswith((".yaml", ".yml")):
            return cls.load(value)
        hint = "give the path of a YAML file, or load the module that registers the set with --import MODULE"
        raise UnknownNameError("operation set", value, sorted(_sets), hint)

    def plain(self) -> str | dict[str, dict[str, Any]]:
        """The set in plain data, from which `OperationSet.of` makes it again: its registered name, or what a file says.

        Raises `ConfigError` for a set written in Python that no name is registered for.
        """
        for name, known in _sets.items():
            if known is self:
                return name
        entries: dict[str, dict[str, Any]] = {}
        names = {make: name for name, make in _factories.items()}
        for name, make in self.items():
            function, arguments = make, {}
            if isinstance(make, functools.partial) and make not in names and not make.args:
                function, arguments = make.func, make.keywords
            if function not in names:
                raise ConfigError(
                    f"candidate operation '{name}' is not registered, so a genotype could not name it: register the set"
                    " (`OperationSet(...).register(NAME)`) or its factory (`@nas.operation(NAME)`)"
                )
            entries[name] = {"factory": names[function], **arguments}
        return entries

    @classmethod
    def load(cls, path: str | Path) -> OperationSet:
        """Read a set from YAML: candidate names, each with a registered `factory` and its keyword arguments.

        ```yaml
        operations:
          residual_7x7: {factory: residual, kernel: 7}
        ```
        Raises `InvalidFileError` for a file that is not of this form, or names an unknown factory or argument.
        """
        return cls._parse(parse_yaml(read_text(path), str(path)), str(path))

    @classmethod
    def _parse(cls, data: Any, where: str) -> OperationSet:
        entries = convert(data, _File, where).operations
        if not entries:
            raise InvalidFileError(f"{where}: 'operations' is empty: name at least one candidate")
        return cls({name: _configured(f"{where}: operations.{name}", entry) for name, entry in entries.items()})


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    operations: dict[str, dict[str, Any]]


def _register_primitives() -> None:
    importlib.import_module("nas.primitives")  # here, since that module needs this one first


def _configured(where: str, entry: dict[str, Any]) -> Factory:
    if "factory" not in entry:
        raise InvalidFileError(f"{where}: missing the field 'factory': the name of a registered operation")
    arguments = {key: value for key, value in entry.items() if key != "factory"}
    try:
        make = factory(str(entry["factory"]))
        _check_arguments(make, str(entry["factory"]), arguments)
    except UnknownNameError as error:
        raise InvalidFileError(f"{where}: {error}") from error
    return functools.partial(make, **arguments) if arguments else make


def _check_arguments(make: Factory, name: str, arguments: Mapping[str, Any]) -> None:
    """A file gives keyword arguments; the positional ones without a default come from the search space."""
    parameters = inspect.signature(make).parameters.values()
    if any(p.kind == p.VAR_KEYWORD for p in parameters):
        return
    optional = [p.name for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD and p.default is not p.empty]
    accepted = optional + [p.name for p in parameters if p.kind == p.KEYWORD_ONLY]
    for key in arguments:
        if key not in accepted:
            raise UnknownNameError(f"argument of '{name}'", key, accepted)


def _require_factory(name: object, make: object) -> None:
    """Raise `ConfigError` for anything but a function: a module (which can be called, too) is one already."""
    module = hasattr(make, "register_forward_hook") and not isinstance(make, type)  # without an import of torch
    if not callable(make) or module:
        raise ConfigError(
            f"candidate operation '{name}' must be a function that returns a module, got {type(make).__name__}; write"
            f" '{name}': lambda channels: ..."
        )


def misfit(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Why `function` cannot be called with these arguments; empty if it can, or does not say what it takes."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        return str(error)
    except ValueError as error:  # a partial of more arguments than its function has, or a function written in C
        return str(error) if isinstance(function, functools.partial) else ""
    return ""


def _origin(factory: Factory) -> str:
    function = factory.func if isinstance(factory, functools.partial) else factory
    arguments = factory.keywords if isinstance(factory, functools.partial) else {}
    return f"{function.__module__}:{function.__qualname__}{arguments or ''}"
