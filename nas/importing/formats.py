"""Genotypes in the texts of other projects, read and written, and the choices of cells that such texts describe.

An importer is a function of a text, and of options of the space that it knows, that returns a `Genotype`. It raises a
`NASError` that names the token that it cannot read, and evaluates nothing. An exporter is a function of a genotype that
returns its text, and raises `ConfigError` for a genotype that the format cannot state. Both are registered by the name
of the format: `@nas.register("importer", NAME)`, `@nas.register("exporter", NAME)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from nas.errors import InvalidFileError, NASError
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype, Provenance
from nas.importing.python_text import Token
from nas.registry import kind
from nas.space.definition import find_space

Importer = Callable[..., Genotype]
"""(text, **options of the space) to a genotype. One whose texts may define several takes `name`, which of them."""

Exporter = Callable[[Genotype], str]
"""A genotype to its text."""

InEdge = tuple[Token, Token]
"""An in-edge of a node as the text states it: its source and its operation."""


def export_genotype(format: str, genotype: Genotype) -> str:
    """Return the text of a genotype in the format of another project; it states the choices, not the options.

    Args:
        format: the name of the format.
        genotype: the genotype.

    Raises:
        UnknownNameError: the format is unknown.
        ConfigError: the format cannot state this genotype.
    """
    write: Exporter = kind("exporter").find(format)
    return write(genotype)


def import_genotype(format: str, text: str, where: str = "text", **options: Any) -> Genotype:
    """Return the genotype that a text of another project describes, with all options of its space.

    Args:
        format: the name of the format.
        text: the text.
        where: the name of the text, for errors and as the source in the provenance.
        options: options of the space.

    Raises:
        UnknownNameError: the format is unknown.
        InvalidFileError: the text is not of this format, or its genotype does not fit the space; the message starts
            with `where` and names the token.
    """
    read: Importer = kind("importer").find(format)
    try:
        genotype = read(text.removeprefix("\ufeff").strip(), **options)  # without a byte order mark
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
    """Return the choices of a `nas.Cell`.

    Args:
        label: the label of the cell.
        nodes: the number of each node and its in-edges; the inputs of the cell have the first numbers.
        operations: the names of operations in this package, by their names in the text.

    Raises:
        ConfigError: an operation is unknown, or a source is no earlier state or is given twice.
    """
    choices: dict[str, Choice] = {}
    for node, edges in nodes:
        found: dict[int, str] = {}
        for source, operation in edges:
            number = source.below(node)
            if number in found:
                raise source.refused(f"a source that node {node} does not have yet")
            found[number] = operations[operation.one_of(operations)]
        choices[f"{label}/{node}"] = tuple(sorted(found))
        choices |= {f"{label}/{node}<-{number}": found[number] for number in sorted(found)}
    return choices
