"""Genotypes in the texts of other projects, read and written, and the choices of cells that such texts describe.

An importer is a function of a text, and of options of the space that it knows, that returns a `Genotype`. It raises
`NASError` that names the token which cannot be, and evaluates nothing. An exporter is a function of a genotype that
returns its text, and raises `ConfigError` for a genotype that the format cannot state. They are registered by the
decorators `importer` and `exporter`, or by an entry point of the groups `nas.importers` and `nas.exporters` that has
the name of the format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Any, Generic, TypeVar

import torch

from nas import plugins
from nas.errors import ConfigError, InvalidFileError, NASError, UnknownNameError
from nas.genotype import Choice, Genotype, Provenance
from nas.literals import Token
from nas.space import find_space

Importer = Callable[..., Genotype]
"""(text, **options of the space) to a genotype. One whose texts may define several takes `name`, which of them."""

Exporter = Callable[[Genotype], str]
"""A genotype to its text."""

InEdge = tuple[Token, Token]
"""An in-edge of a node of a cell, as found: its source and its operation."""

F = TypeVar("F", Importer, Exporter)
R = TypeVar("R", bound=Importer)
W = TypeVar("W", bound=Exporter)


class _Formats(Generic[F]):
    """Functions by the name of a format: registered by a decorator, or installed with a plugin."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.registered: dict[str, F] = {}

    def names(self) -> list[str]:
        return sorted({*self.registered, *(point.name for point in metadata.entry_points(group=f"nas.{self.role}s"))})

    def register(self, format: str, function: F) -> None:
        if self.registered.setdefault(format, function) is not function:
            raise ConfigError(f"the {self.role} '{format}' is registered twice")

    def find(self, format: str) -> F:
        for point in metadata.entry_points(group=f"nas.{self.role}s", name=format):
            found: F = plugins.load(point, self.role)
            return found
        if format not in self.registered:
            hint = f"register it with @nas.importing.{self.role}"
            raise UnknownNameError("genotype format", format, self.names(), hint)
        return self.registered[format]


_importers: _Formats[Importer] = _Formats("importer")
_exporters: _Formats[Exporter] = _Formats("exporter")


def importer(format: str) -> Callable[[R], R]:
    """Decorator: register the importer of a format; raises `ConfigError` if another one has the name."""

    def register(function: R) -> R:
        _importers.register(format, function)
        return function

    return register


def exporter(format: str) -> Callable[[W], W]:
    """Decorator: register the exporter of a format; raises `ConfigError` if another one has the name."""

    def register(function: W) -> W:
        _exporters.register(format, function)
        return function

    return register


def importers() -> list[str]:
    """The names of all formats that can be read; installed plugins are not imported for it."""
    return _importers.names()


def exporters() -> list[str]:
    """The names of all formats that can be written; installed plugins are not imported for it."""
    return _exporters.names()


def find_importer(format: str) -> Importer:
    """The importer of a format; raises `UnknownNameError` with the nearest."""
    return _importers.find(format)


def find_exporter(format: str) -> Exporter:
    """The exporter of a format; raises `UnknownNameError` with the nearest."""
    return _exporters.find(format)


def export_genotype(format: str, genotype: Genotype) -> str:
    """The text of a genotype in the format of another project, which states its choices alone, not its options.

    Raises `UnknownNameError` for an unknown format, and `ConfigError` for a genotype that the format cannot state.
    """
    return find_exporter(format)(genotype)


def import_genotype(format: str, text: str, where: str = "text", **options: Any) -> Genotype:
    """The genotype that a text of another project describes, with all options of its space, and `where` as its source.

    Raises `UnknownNameError` for an unknown format or space, and `InvalidFileError` that starts with `where` and names
    the token for a text that is not of this format, or whose genotype does not fit its space.
    """
    read = find_importer(format)
    try:
        genotype = read(text.removeprefix("\ufeff").strip(), **options)  # a byte order mark is no part of it
        space = find_space(genotype.space)
        genotype = Genotype(
            space=space.name,
            options=space.options(**genotype.options),
            choices=genotype.choices,
            provenance=Provenance(source=f"{where}, read as '{format}'"),
        )
        with torch.device("meta"):
            space.derived(genotype)
    except NASError as error:
        raise InvalidFileError(f"{where}: {error}") from error
    return genotype


def cell_choices(
    label: str, nodes: Iterable[tuple[int, Iterable[InEdge]]], operations: Mapping[str, str]
) -> dict[str, Choice]:
    """The choices that make up a `nas.Cell`.

    Args:
        label: the label of the cell.
        nodes: the number of each node (the inputs have the first numbers), and its in-edges.
        operations: our names of operations by those in the text.

    Raises `ConfigError` for an unknown operation, and for a source that is no earlier state or is given twice.
    """
    choices: dict[str, Choice] = {}
    for node, edges in nodes:
        found: dict[int, str] = {}
        for source, operation in edges:
            number = source.below(node)
            if number in found:
                raise source.refused(
                    f"another source: two edges from one source ({number}) to one node ({node}) are not supported"
                )
            found[number] = operations[operation.one_of(operations)]
        choices[f"{label}/{node}"] = tuple(sorted(found))
        choices |= {f"{label}/{node}<-{number}": found[number] for number in sorted(found)}
    return choices
