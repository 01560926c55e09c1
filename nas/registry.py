"""The one registry: everything that a configuration can name, kind by kind.

A name is known if an installed package offers it by an entry point of the kind's group (`nas.relaxations`), or if a
module that was imported registered it (`@nas.register("relaxation", "exploring")`). `module:name` finds any object of a
module that was imported. The built-in parts are entry points of this package's own `pyproject.toml`: they take the same
road as those of others. A file never causes an import, except of what installed packages offer.

Arguments come from the configuration. They are converted and range-checked by the annotations of the function or class:
`steps: Count`, `temperature: Positive`, `mode: Literal["a", "b"]`, or any `Annotated` type of msgspec.
"""

from __future__ import annotations

import functools
import inspect
import pkgutil
import re
import sys
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from importlib.metadata import EntryPoint
from typing import Annotated, Any, TypeVar

import msgspec

from nas.errors import ConfigError, MissingPackageError, NASError, UnknownNameError, nearest
from nas.files import LIMITS

T = TypeVar("T")

Count = Annotated[int, msgspec.Meta(ge=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NonNegative = Annotated[float, msgspec.Meta(ge=0)]
Rate = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]

kinds: dict[str, Kind] = {}
"""Every kind of this package and of the plugins that were imported, by name."""


class Kind:
    """One kind of objects that configurations name, such as relaxations.

    A kind made again by the same name and group, as when its module is reloaded, keeps what is registered.

    Args:
        name: name of the kind, in the singular (`relaxation`).
        group: entry-point group in which installed packages offer objects of this kind.
        expected: what a registered object must be, in words.
        accepts: whether an object is of this kind.
        positional: number of leading arguments that the caller passes by position, not the configuration.
        given: names of arguments that the caller passes by name, to objects whose signature has them.
        reserved: fields of an entry that are not arguments, beside `name`.
        adapt: function of (name, object) that returns what is registered; or its place, `module:name`, to import it at
            first use.

    Raises:
        ConfigError: another group has a kind of this name.

    Example:
        >>> RAINS = Kind("rain preset", "my_package.rain_presets", given=("seed",))
        >>> @RAINS.register("drizzle")
        ... def drizzle(seed: int, amount: Positive = 0.1): ...
        >>> RAINS.create({"name": "drizzle", "amount": 0.2}, "task.rain", seed=0)
    """

    name: str
    group: str

    def __init__(
        self,
        name: str,
        group: str,
        *,
        expected: str = "a function or a class",
        accepts: Callable[[Any], bool] = callable,
        positional: int = 0,
        given: tuple[str, ...] = (),
        reserved: tuple[str, ...] = (),
        adapt: Callable[[str, Any], Any] | str | None = None,
    ) -> None:
        before: Kind | None = kinds.get(name)
        if before is not None and before.group != group:
            raise ConfigError(f"kind '{name}' is created twice: with the group {before.group} and with {group}")
        self.name, self.group, self.expected, self.accepts = name, group, expected, accepts
        self.positional, self.given, self.reserved, self._adapt = positional, given, ("name", *reserved), adapt
        self._registered: dict[str, Any] = {} if before is None else before._registered
        self._origins: dict[str, str] = {} if before is None else before._origins
        kinds[name] = self

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: register an object under `name`.

        An object from the same origin (module and qualified name) replaces the earlier one, so that a module can be
        reloaded and a notebook's cell can run again.

        Raises:
            ConfigError: an object from another origin has the name, or this object is not of this kind.
        """
        if not isinstance(name, str) or not name:
            raise ConfigError(
                f"a {self.name} must be registered by a name, got {name!r}; write @nas.register('{self.name}', 'NAME')"
            )

        def decorate(value: T) -> T:
            caller = sys._getframe(1).f_globals.get("__name__", "")
            added: T = self.add(name, value, origin(value) or f"{caller}:{name}")
            return added

        return decorate

    def add(self, name: str, value: Any, place: str) -> Any:
        """Register an object of the origin `place`; return what is registered. See `register`."""
        value = self._adapted(name, value, f"{self.name} '{name}'")
        if name in self._registered and self._place(name) != place:
            raise self._twice(name, self._place(name), place)
        self._registered[name], self._origins[name] = value, place
        return value

    def names(self) -> dict[str, str]:
        """Every known name, sorted, with its origin (`module:name`). Imports nothing."""
        known = {point.name: f"{point.value} (entry point)" for point in self.points()}
        known.update({name: self._place(name) for name in self._registered})
        return dict(sorted(known.items()))

    def find(self, name: object, where: str = "") -> Any:
        """Return the object that `name` stands for.

        Args:
            name: a registered name, the name of an entry point, or `module:name` of an imported module.
            where: place of the name in a configuration, for messages.

        Raises:
            UnknownNameError: nothing has this name; the message suggests the nearest.
            ConfigError: two objects claim the name, or its entry point cannot be imported or is not of this kind.
        """
        hint = f"register it with @nas.register('{self.name}', NAME), and load its module with --import MODULE"
        if isinstance(name, str):
            points = {point.value: point for point in self.points() if point.name == name}
            if len(points) > 1:
                raise self._twice(name, *(f"{value} of {_package(point)}" for value, point in points.items()))
            for point in points.values():
                return self._offered(point)
            if name in self._registered:
                return self._registered[name]
            module, _, path = name.partition(":")
            if path and (value := _attribute(sys.modules.get(module), path)) is not None:
                return self._adapted(name, value, name)
            if path and module not in sys.modules:
                hint = f"load its module with --import {module}"
        raise UnknownNameError(self.name, name, self.names(), hint, where)

    def name_of(self, value: object) -> str | None:
        """Return the name of a registered or offered object, or None."""
        for name, known in self._registered.items():
            if known is value:
                return name
        offered = (p.name for p in self.points() if _attribute(sys.modules.get(p.module), p.attr) is value)
        return next(offered, None)

    def working(self) -> Iterator[tuple[str, Any]]:
        """Return every name with its object; one that cannot be found is a warning that names its package."""
        return working(self.names(), self.find)

    def create(self, entry: str | Mapping[str, Any], where: str, *passed: Any, **given: Any) -> Any:
        """Call what an entry of a configuration names, with the entry's other fields as arguments.

        Args:
            entry: a name, or a mapping of `name` and arguments.
            where: place of the entry in the configuration, for messages (`search.relaxation`).
            passed: the kind's `positional` arguments.
            given: the kind's `given` arguments; those that the object does not take are left out.

        Raises:
            UnknownNameError: nothing has the name.
            ConfigError: an argument is unknown, missing, of another type, or out of the range of its annotation, or the
                object itself refuses it.
        """
        make, stated = self.prepare(entry, where, tuple(given))
        try:
            return make(*passed, **{name: given[name] for name in takes(make, given)}, **stated)
        except MissingPackageError:
            raise
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from error

    def prepare(
        self, entry: str | Mapping[str, Any], where: str, given: tuple[str, ...] = ()
    ) -> tuple[Callable[..., Any], dict[str, Any]]:
        """Return what an entry names, and the arguments that it states, converted and checked; see `create`."""
        if isinstance(entry, str):
            entry = {"name": entry}
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise ConfigError(f"{where} must be the name of a {self.name} or a mapping with 'name', got {entry!r}")
        make = self.find(entry["name"], where)
        what = f"{self.name} '{entry['name']}'"
        if reserved := [name for name in self.reserved if name in _parameters(make)]:
            raise ConfigError(f"{what} must not take the argument '{reserved[0]}': it is reserved")
        stated = {name: value for name, value in entry.items() if name not in self.reserved}
        return make, arguments(make, stated, where, (*self._excluded(make), *given), what)

    def complete(self, entry: str | Mapping[str, Any], where: str) -> dict[str, Any]:
        """Check an entry, and return it as a mapping with all arguments, those left at their defaults included."""
        make, stated = self.prepare(entry, where)
        fields = dict(entry) if isinstance(entry, Mapping) else {"name": entry}
        defaults = {
            name: parameter.default
            for name, parameter in _parameters(make).items()
            if name not in self._excluded(make) and isinstance(parameter.default, _PLAIN)
        }
        return {**fields, **defaults, **stated}

    def _excluded(self, make: Callable[..., Any]) -> tuple[str, ...]:
        """The parameters that the configuration does not state."""
        return (*list(_parameters(make))[: self.positional], *self.given)

    def _place(self, name: str) -> str:
        """The origin of a registered object."""
        return self._origins.get(name) or origin(self._registered[name])

    def points(self) -> list[EntryPoint]:
        """Return the entry points by which installed packages offer objects of this kind."""
        return _installed(self.group, tuple(sys.path), metadata.entry_points)

    def _offered(self, point: EntryPoint) -> Any:
        """The object of an entry point, or the one that its module registered by the same name."""
        package = _package(point)
        try:
            value = point.load()
        except (Exception, SystemExit) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ConfigError(
                f"{self.name} '{point.name}': {point.value} of the installed package '{package}' cannot be imported"
                f" ({reason}); repair the package, or uninstall it by `pip uninstall {package}`"
            ) from error
        registered = self._registered.get(point.name, value)
        if registered is value:
            what = f"entry point '{point.name}', {point.value}, of the installed package '{package}'"
            return self._adapted(point.name, value, what)
        if self._place(point.name) != (origin(value) or point.value):
            raise self._twice(point.name, f"{point.value} of {package}", self._place(point.name))
        return registered

    def _adapted(self, name: str, value: Any, what: str) -> Any:
        """What is registered for an object; raises `ConfigError` for one that is not of this kind."""
        if not self.accepts(value):
            raise ConfigError(f"{what} must be {self.expected}, got {value!r}")
        adapt = pkgutil.resolve_name(self._adapt) if isinstance(self._adapt, str) else self._adapt
        return value if adapt is None else adapt(name, value)

    def _twice(self, name: str, *claims: str) -> ConfigError:
        return ConfigError(f"{self.name} '{name}' is registered twice: by {' and by '.join(claims)}")


def kind(name: str) -> Kind:
    """Return the kind of this name; raises `UnknownNameError`."""
    if name not in kinds:
        raise UnknownNameError("kind", name, kinds, "load the plugin that creates it with --import MODULE")
    return kinds[name]


def entry_name(entry: str | Mapping[str, Any]) -> str:
    """Return the name in an entry of a configuration: a name, or a mapping of `name` and arguments."""
    return entry if isinstance(entry, str) else str(entry["name"])


def register(kind_name: str, name: str) -> Callable[[T], T]:
    """Decorator: register an object under `name`, for configurations to name.

    Args:
        kind_name: one of `nas.registry.kinds`: `relaxation`, `hypergradient`, `regularizer`, `task`, ...
        name: name of the object in configurations.

    Raises:
        UnknownNameError: there is no such kind.
        ConfigError: an object from another origin has the name, or this object is not of this kind.

    Example:
        >>> @nas.register("regularizer", "no_skips")
        ... def no_skips(supernet, *, candidate: str = "skip_connect"): ...
    """
    return kind(kind_name).register(name)


def arguments(
    make: Callable[..., Any],
    stated: Mapping[str, Any],
    where: str,
    excluded: tuple[str, ...] = (),
    what: str = "",
    *,
    complete: bool = True,
) -> dict[str, Any]:
    """Convert and range-check arguments by the annotated signature of a function or class.

    Args:
        make: the function or class.
        stated: arguments in plain data, by name.
        where: place of the arguments in a configuration, for messages.
        excluded: parameters that plain data must not state, beside the positional-only ones.
        what: description of `make`, for messages.
        complete: whether every argument without a default must be stated.

    Raises:
        ConfigError: an argument is unknown, missing, of another type, or out of the range of its annotation.
    """
    what = what or getattr(make, "__qualname__", repr(make))
    known, others = {}, False
    for name, parameter in _parameters(make).items():
        others = others or parameter.kind is parameter.VAR_KEYWORD
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD) and name not in excluded:
            known[name] = parameter
    for name in stated:
        if name not in known and (name in excluded or not others):
            raise ConfigError(
                f"{where}.{name} is not an argument of {what}{nearest(name, known)}; it takes"
                f" {', '.join(known) or 'no arguments'}"
            )
    for name, parameter in known.items():
        if complete and parameter.default is parameter.empty and name not in stated:
            raise ConfigError(f"{where}: {what} needs the argument '{name}'")
    return {
        name: checked(value, _annotation(make, known[name]), f"{where}.{name}") if name in known else value
        for name, value in stated.items()
    }


def working(names: Iterable[str], find: Callable[[str], T]) -> Iterator[tuple[str, T]]:
    """Yield the names with what `find` returns; one for which it raises is left out with a warning."""
    for name in names:
        try:
            yield name, find(name)
        except NASError as error:
            warnings.warn(f"left out {error}", stacklevel=2)


def takes(make: Callable[..., Any], names: Iterable[str]) -> list[str]:
    """Return those of the names that are parameters of a function or class; all of them if it takes any keyword."""
    parameters = _parameters(make)
    every = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return [name for name in names if every or name in parameters]


def checked(value: Any, annotation: Any, where: str) -> Any:
    """Convert plain data to the type of an annotation; raises `ConfigError` that begins with `where`."""
    try:
        return msgspec.convert(value, annotation)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        raise ConfigError(
            f"{where}{place.rstrip('`')} must be {_requirement(message, value, annotation)}, got {value!r}"
        ) from error
    except TypeError:  # an annotation of no type that plain data has
        return value


def _requirement(message: str, value: Any, annotation: Any) -> str:
    """What a message of msgspec expects, in words."""
    if message.startswith("Invalid enum value"):
        known = _literals(annotation)
        return f"one of {', '.join(known)}{nearest(str(value), known)}"
    expected, _, rest = message.removeprefix("Expected `").partition("`")
    if bound := re.match(r" (>=|<=|>|<) (\S+)", rest):
        return f"{LIMITS[bound[1]]} {float(bound[2]):g}"
    names = [_TYPES.get(name, f"'{name}'") for name in expected.split(" | ")]
    return " or ".join(names) + rest.partition(", got ")[0]


_PLAIN = (bool, int, float, str, list, tuple, type(None))
_TYPES = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}


def origin(value: Any) -> str:
    """Return where an object was defined, `module:name`, with the bound arguments of a partial; empty if unknown."""
    bound = value.keywords if isinstance(value, functools.partial) else {}
    value = value.func if isinstance(value, functools.partial) else value
    return f"{value.__module__}:{value.__qualname__}{bound or ''}" if hasattr(value, "__qualname__") else ""


def _parameters(make: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(make).parameters)
    except ValueError:  # written in C
        return {"arguments": inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)}


def _annotation(make: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The type of one parameter: those of others need not be known when the program runs."""
    if parameter.annotation is parameter.empty:
        return Any
    function: Any = make.func if isinstance(make, functools.partial) else make
    function = inspect.unwrap(function.__init__ if isinstance(function, type) else function)  # type: ignore[misc]
    only = types.SimpleNamespace(__annotations__={"it": parameter.annotation})
    try:
        return typing.get_type_hints(only, getattr(function, "__globals__", None), include_extras=True)["it"]
    except NameError as error:
        raise ConfigError(
            f"{origin(make)}: the annotation '{error.name}' of '{parameter.name}' is not known when the program runs;"
            " import it outside `if TYPE_CHECKING`"
        ) from error


def _literals(annotation: Any) -> list[str]:
    """The values of all literals in an annotation."""
    if typing.get_origin(annotation) is typing.Literal:
        return [str(value) for value in typing.get_args(annotation)]
    return [value for inner in typing.get_args(annotation) for value in _literals(inner)]


def _attribute(module: Any, path: str) -> Any:
    """The object at a dotted path in a module, or None."""
    return functools.reduce(lambda found, name: getattr(found, name, None), path.split("."), module)


@functools.lru_cache(maxsize=256)
def _installed(group: str, path: tuple[str, ...], read: Callable[..., Iterable[EntryPoint]]) -> list[EntryPoint]:
    """The entry points in a group of the packages on a search path, cached since reading them takes milliseconds."""
    return list(read(group=group))


def _package(point: EntryPoint) -> str:
    return _name(point.dist) if point.dist else "unknown"


@functools.lru_cache(maxsize=256)
def _name(package: metadata.Distribution) -> str:
    """The name of a package, cached since it stands in a file."""
    return package.name


def _returns_modules(value: Any) -> bool:
    """Whether an object may be a factory of modules: a module itself can be called, too."""
    return callable(value) and (isinstance(value, type) or not hasattr(value, "register_forward_hook"))


Kind("search space", "nas.search_spaces", expected="a function of `choose`", adapt="nas.space.definition:space_named")
Kind("task", "nas.tasks", expected="a class of tasks", accepts=inspect.isclass)
Kind("operation", "nas.operations", expected="a function that returns a module", accepts=_returns_modules)
Kind("operation set", "nas.operation_sets", expected="an OperationSet", accepts=lambda v: isinstance(v, Mapping))
Kind("importer", "nas.importers", positional=1)
Kind("exporter", "nas.exporters", positional=1)
Kind("relaxation", "nas.relaxations")
Kind("wrapper", "nas.wrappers", expected="a class that inherits nas.space.wrapper.Wrapper")
Kind("hypergradient", "nas.hypergradients", reserved=("batches",))
Kind(
    "regularizer",
    "nas.regularizers",
    positional=1,
    given=("cost", "flops", "latency"),
    reserved=("weight", "ramp", "record_as"),
)
Kind("derivation", "nas.derivations")
Kind("searcher", "nas.searchers", positional=1, given=("seed",))
Kind("score", "nas.scores")
Kind("optimizer", "nas.optimizers", positional=1)
Kind("schedule", "nas.schedules", positional=1)
Kind("freezing", "nas.freezings")
Kind("stopping rule", "nas.stopping_rules", given=("description", "epochs"))
Kind("observer", "nas.observers", given=("description", "task", "levels"))
Kind("model", "nas.models", expected="a function that returns the path of the folder of a model")
Kind("weights", "nas.weights", expected="a function that returns the path of a safetensors file")
Kind("table", "nas.tables", expected="a function that returns a nas.benchmark.table.Table")
