"""Genotypes from the texts of other projects: a registry of importers, and the choices of cells they describe.

An importer is a function of a text, and of options of the space that it knows, that returns a `Genotype`. It raises
`NASError` that names the token which cannot be, and evaluates nothing. It is registered by the decorator `importer`, or
by an entry point of the group `nas.importers` that has the name of the format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Any, TypeVar

import torch

from nas.errors import ConfigError, InvalidFileError, NASError, UnknownNameError
from nas.genotype import Choice, Genotype, Provenance
from nas.literals import Token
from nas.space import find_space

Importer = Callable[..., Genotype]
"""(text, **options of the space) to a genotype. One whose texts may define several takes `name`, which of them."""

InEdge = tuple[Token, Token]
"""An in-edge of a node of a cell, as found: its source and its operation."""

F = TypeVar("F", bound=Importer)
_importers: dict[str, Importer] = {}


def importer(format: str) -> Callable[[F], F]:
    """Decorator: register the importer of a format; raises `ConfigError` where another one has the name."""

    def register(function: F) -> F:
        if _importers.setdefault(format, function) is not function:
            raise ConfigError(f"the importer '{format}' is registered twice")
        return function

    return register


def importers() -> list[str]:
    """The names of all known formats; installed plugins are not imported for it."""
    return sorted({*_importers, *(point.name for point in metadata.entry_points(group="nas.importers"))})


def find_importer(format: str) -> Importer:
    """The importer of a format; raises `UnknownNameError` with the nearest."""
    for point in metadata.entry_points(group="nas.importers", name=format):
        found: Importer = point.load()
        return found
    if format not in _importers:
        raise UnknownNameError("genotype format", format, importers(), "register it with @nas.importing.importer")
    return _importers[format]


def import_genotype(format: str, text: str, where: str = "text", **options: Any) -> Genotype:
    """The genotype that a text of another project describes, with all options of its space, and `where` as its source.

    Raises `UnknownNameError` for an unknown format or space, and `InvalidFileError` that starts with `where` and names
    the token for a text that is not of this format, or whose genotype does not fit its space.
    """
    read = find_importer(format)
    try:
        genotype = read(text.strip(), **options)
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
                raise source.refused(f"another source than that of the other in-edge of node {node}")
            found[number] = operations[operation.one_of(operations)]
        choices[f"{label}/{node}"] = tuple(sorted(found))
        choices |= {f"{label}/{node}<-{number}": found[number] for number in sorted(found)}
    return choices
