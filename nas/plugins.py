"""Installed packages that offer search spaces, tasks or formats by entry points: one that is broken stops no other."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import EntryPoint
from typing import Any, TypeVar

from nas.errors import ConfigError, NASError

T = TypeVar("T")


def load(point: EntryPoint, kind: str) -> Any:
    """What an entry point names, for whoever asks for it; `kind` is what that should be, such as `search space`.

    Raises `ConfigError` that names the package, whatever its import raises.
    """
    try:
        return point.load()
    except (Exception, SystemExit) as error:
        package = point.dist.name if point.dist else "unknown"
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(
            f"{kind} '{point.name}': {point.value} of the installed package '{package}' cannot be imported ({reason});"
            f" repair the package, or uninstall it by `pip uninstall {package}`"
        ) from error


def those_that_work(names: Iterable[str], find: Callable[[str], T]) -> Iterator[tuple[str, T]]:
    """The names and what `find` returns for each, for whoever wants all; warns of those for which it raises."""
    for name in names:
        try:
            yield name, find(name)
        except NASError as error:
            warnings.warn(f"left out {error}", stacklevel=2)
