"""The rows of a table, from CSV, JSON, YAML or a mapping."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from nas.errors import InvalidFileError, UnknownNameError
from nas.files import parse_yaml, read_bytes

VALUE = "value"
"""The name of the column if a file has one number for each network."""


Parsed = tuple[list[str], list[str], list[str], list[Sequence[Any]]]
"""Keys, places, names of columns, and cells by row."""


class Rows(NamedTuple):
    """The rows of a file, in its order."""

    keys: list[str]
    places: list[str]
    """Where each row is, for messages."""
    columns: dict[str, NDArray[np.float64]]
    """Finite numbers `(rows,)` by name."""


def read_rows(path: str | Path) -> Rows:
    """Read the rows of a table.

    Args:
        path: a file `.csv`, `.json`, `.yaml` or `.yml`, possibly with `.gz` after it.

    Raises:
        InvalidFileError: the file cannot be read, is not of its format, has no rows or columns, has a network or a
            column twice, or a cell is not a finite number.
        UnknownNameError: the suffix is another one.
    """
    path = Path(path)
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix
    if suffix not in _READERS:
        raise UnknownNameError("format of a table", suffix, _READERS, where=str(path))
    return _rows(_READERS[suffix](_text(path), str(path)), str(path))


def rows_of(results: Mapping[str, Any], where: str) -> Rows:
    """Return the rows of a mapping; raises `InvalidFileError` as `read_rows` does, with `where` in the message."""
    return _rows(_mapping(results, where), where)


def _rows(parsed: Parsed, where: str) -> Rows:
    keys, places, names, cells = parsed
    if not keys or not names:
        raise InvalidFileError(f"{where}: must have a row for each network and at least one column, got none")
    numbers = np.array([[_number(cell) for cell in row] for row in cells])
    for row, column in np.argwhere(~np.isfinite(numbers)):
        raise InvalidFileError(f"{places[row]}: '{names[column]}' must be a finite number, got {cells[row][column]!r}")
    return Rows(keys, places, dict(zip(names, numbers.T.copy(), strict=True)))


def _csv(text: str, where: str) -> Parsed:
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise InvalidFileError(f"{where}: not valid CSV: {error}") from error
    header, *rows = rows or [[]]
    names = header[1:]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InvalidFileError(f"{where}: columns must have different names, got '{min(twice)}' twice")
    places = [f"{where}: row {number}" for number in range(1, len(rows) + 1)]
    for place, row in zip(places, rows, strict=True):
        if len(row) != len(header):
            raise InvalidFileError(f"{place} must have {len(header)} cells, as the header, got {len(row)}")
    return [row[0] for row in rows], places, names, [row[1:] for row in rows]


def _json(text: str, where: str) -> Parsed:
    def unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
        return _unique(items, f"{where}: key")

    try:
        msgspec.json.decode(text)  # refuses half characters, which `json` accepts
        data = json.loads(text, object_pairs_hook=unique)
    except InvalidFileError:
        raise
    except (ValueError, msgspec.DecodeError) as error:
        raise InvalidFileError(f"{where}: not valid JSON: {error}") from error
    except RecursionError as error:
        raise InvalidFileError(f"{where}: nested too deeply") from error
    return _mapping(data, where)


_LINE = re.compile(r"""(["']?)([\w:.|~+-]+)\1: +([-+.\deE]+)""")


def _yaml(text: str, where: str) -> Parsed:
    lines = text.splitlines()
    found = [_LINE.fullmatch(line) for line in lines]
    if all(found):  # a number for each key: a hundred times as fast
        keys = [match[2] for match in found if match]
        if len(set(keys)) == len(keys):
            return _mapping({match[2]: match[3] for match in found if match}, where)
    return _mapping(parse_yaml(text, where), where)


def _mapping(data: Any, where: str) -> Parsed:
    """Rows of a mapping of keys to a number, or to numbers by name; a list of numbers makes numbered columns."""
    if not isinstance(data, Mapping):
        raise InvalidFileError(f"{where}: must be a mapping of networks to numbers, got {type(data).__name__}")
    rows = _unique(((str(key), value) for key, value in data.items()), f"{where}: network")
    rows = {key: _columns(value, f"{where}: network '{key}': column") for key, value in rows.items()}
    places = [f"{where}: network '{key}'" for key in rows]
    names = list(next(iter(rows.values()), {}))
    for place, row in zip(places, rows.values(), strict=True):
        if row.keys() != set(names):
            raise InvalidFileError(
                f"{place} must have the columns {', '.join(names)}, as the first, got {', '.join(row)}"
            )
    return list(rows), places, names, [[row[name] for name in names] for row in rows.values()]


def _columns(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {VALUE: value}
    cells = list[tuple[str, Any]]()
    for name, cell in value.items():
        if isinstance(cell, list):
            cells += [(f"{name}_{number}", each) for number, each in enumerate(cell, 1)]
        else:
            cells.append((str(name), cell))
    return _unique(cells, where)


def _unique(items: Iterable[tuple[str, Any]], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in items:
        if key in found:
            raise InvalidFileError(f"{where} '{key}' must be given once, got it twice")
        found[key] = value
    return found


_READERS: dict[str, Callable[[str, str], Parsed]] = {".csv": _csv, ".json": _json, ".yaml": _yaml, ".yml": _yaml}


def _text(path: Path) -> str:
    data = read_bytes(path)
    try:
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InvalidFileError(f"{path}: not a gzip file: {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidFileError(f"{path}: not a text file: {error.reason} at byte {error.start}") from error


def _number(cell: Any) -> float:
    """The number in a cell; not-a-number if there is none."""
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        return float("nan")
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return float("nan")
