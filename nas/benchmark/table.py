"""A table: what every network of a search space was measured to achieve."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas.benchmark.enumeration import Enumeration
from nas.benchmark.table_file import Rows, read_rows, rows_of
from nas.errors import ConfigError, InvalidFileError, NASError, UnknownNameError
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype
from nas.registry import kind
from nas.space.definition import Description, find_space

Column = NDArray[np.float64]


class Target(NamedTuple):
    """What a search on a table is about: the column that a searcher sees, and the one that judges what it chose."""

    seen: str
    judged: str


class Published(NamedTuple):
    """A published result of a method on a table."""

    method: str
    """The name of the searcher here."""
    target: str
    mean: float
    deviation: float
    """Standard deviation over repetitions."""
    evaluations: int
    """The number of evaluations here that stands for its budget."""
    source: str


@dataclass(frozen=True)
class Table:
    """Results of every network of a search space.

    A function that returns a table is registered by `@nas.register("table", NAME)`.

    Args:
        description: the space, with the options of the networks that were measured.
        enumeration: the genotypes, numbered.
        columns: results `(genotypes,)` by name, all finite; larger is better.
        targets: pairs of columns for searches, by name; the first one is the default.
        published: results of others, to compare with.
        source: whose results these are.
        input: the shape of one input of the networks that were measured, such as `(3, 32, 32)`.
    """

    description: Description
    enumeration: Enumeration
    columns: Mapping[str, Column]
    targets: Mapping[str, Target] = field(default_factory=dict)
    published: Sequence[Published] = ()
    source: str = ""
    input: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        space: str,
        results: Mapping[str, Any] | str | Path,
        *,
        options: Mapping[str, Any] | None = None,
        importer: str | None = None,
        targets: Mapping[str, Target] | None = None,
        published: Sequence[Published] = (),
        source: str = "",
        input: tuple[int, ...] = (),
    ) -> Table:
        """Make a table from the results of every network of a space.

        Args:
            space: the name of the search space.
            results: maps the key of each network (see `nas.benchmark.enumeration.Enumeration`) to a number, or to
                numbers by name of the column. Or the path of a file: CSV with a header, whose first column has the
                keys, or JSON or YAML with such a mapping; possibly compressed by gzip (`.csv.gz`).
            options: of the space.
            importer: the name of an importer that reads the keys, in place of those of `Enumeration`.
            targets: pairs of columns for searches, by name. By default a single column is seen and judged.
            published: results of others.
            source: whose results these are.
            input: the shape of one input of the networks that were measured.

        Raises:
            InvalidFileError: the file cannot be read, a key names no network of the space or is listed twice, a network
                has no row, or a number is not finite.
            UnknownNameError: the space, importer, or a column of a target is unknown.

        Example:
            >>> def pair(choose, /):
            ...     return choose("op", {"conv": lambda: nn.Conv2d(1, 1, 3), "skip": nn.Identity})
            >>> space = nas.SearchSpace("pair", pair)
            >>> table = Table.of("pair", {"conv": 71.5, "skip": 62.0})
            >>> table.column("value")[table.row({"op": "skip"})]
            62.0
        """
        if isinstance(results, Mapping):
            where, rows = f"table of space '{space}'", rows_of(results, f"table of space '{space}'")
        else:
            where, rows = str(results), read_rows(results)
        description = find_space(space).describe(**(options or {}))
        enumeration = _enumeration(rows, description, where)
        order = _order(rows, enumeration, space, importer, where)
        columns = {name: column[order] for name, column in rows.columns.items()}
        if targets is None:
            targets = {name: Target(name, name) for name in columns} if len(columns) == 1 else {}
        table = cls(description, enumeration, columns, targets, published, source, input)
        for name in (name for target in targets.values() for name in target):
            table.column(name, where)
        return table

    @property
    def space(self) -> str:
        """The name of the search space."""
        return self.description.space.name

    def __len__(self) -> int:
        return len(self.enumeration)

    def row(self, choices: Mapping[str, Choice]) -> int:
        """Return the row of the genotype with these choices; raises `SpaceError` if there is none."""
        return self.enumeration.row(choices)

    def genotype(self, row: int) -> Genotype:
        """Return the genotype of a row."""
        return Genotype(space=self.space, choices=self.enumeration.choices(row), options=self.description.options)

    def published_of(self, target: Target) -> list[Published]:
        """Return the results of others on a pair of columns."""
        return [each for each in self.published if self.targets.get(each.target) == target]

    def column(self, name: str, where: str = "") -> Column:
        """Return a column `(genotypes,)`; raises `UnknownNameError`, at the place `where`, if there is none."""
        if name not in self.columns:
            raise UnknownNameError("column", name, self.columns, where=where)
        return self.columns[name]


def find_table(name: str) -> Table:
    """Return the table that is registered by a name.

    Raises:
        UnknownNameError: there is no such table.
        ConfigError: what is registered returns no table.

    Example:
        >>> table = find_table("nas-bench-201")
        >>> len(table), max(table.column("c10_test_e200"))
        (15625, 94.3733)
    """
    table = _made(kind("table").find(name))
    if not isinstance(table, Table):
        raise ConfigError(f"table '{name}' must be a function that returns a Table, got {type(table).__name__}")
    return table


@functools.lru_cache(maxsize=8)
def _made(make: Callable[[], Any]) -> Any:
    """What a registered function returns; reading a table takes a second."""
    return make()


def _enumeration(rows: Rows, description: Description, where: str) -> Enumeration:
    """The genotypes of a space that is about as large as a table."""
    limit = 2 * len(rows.keys) + 1000
    enumeration = Enumeration(description.decisions, limit)
    if not enumeration.complete:
        raise InvalidFileError(
            f"{where}: must have a row for each network of space '{description.space.name}', which has more than"
            f" {limit:,}, got {len(rows.keys):,}"
        )
    return enumeration


def _order(rows: Rows, enumeration: Enumeration, space: str, importer: str | None, where: str) -> NDArray[np.int64]:
    """The position of the row of each genotype in a file."""
    read = None if importer is None else kind("importer").find(importer, "importer")
    order = np.full(len(enumeration), -1)
    for at, (key, place) in enumerate(zip(rows.keys, rows.places, strict=True)):
        try:
            row = enumeration.row_of_key(key) if read is None else enumeration.row(read(key).choices)
        except NASError as error:
            raise InvalidFileError(f"{place}: {error}") from error
        if order[row] >= 0:
            raise InvalidFileError(f"{place}: '{key}' must be listed once, got {rows.keys[order[row]]} before")
        order[row] = at
    if missing := np.flatnonzero(order < 0).tolist():
        raise InvalidFileError(
            f"{where}: must have a row for each of the {len(order):,} networks of space '{space}', got"
            f" {len(rows.keys):,}; there is none for {enumeration.key(missing[0])}"
        )
    return order
