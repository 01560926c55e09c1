"""Rows of a long computation in a file of JSON lines, which a stopped program continues."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nas.errors import ConfigError, InvalidFileError
from nas.files import read_bytes

Row = dict[str, Any]


class ResultRows:
    """The rows of a file by key; the first line of the file holds the settings.

    A damaged last line, of a kill while it was written, is dropped.

    Args:
        path: the file; it is made if it does not exist.
        key: the fields that name a row.
        settings: the settings as text.
        alike: whether the settings of an existing file, as text, are these; by default if the texts are equal.

    Raises:
        ConfigError: the file has other settings.
        InvalidFileError: another line is damaged.
    """

    def __init__(
        self, path: Path, key: Sequence[str], settings: str, alike: Callable[[str], bool] | None = None
    ) -> None:
        self.path, self.key, self.settings = path, tuple(key), settings
        self.done: dict[tuple[Any, ...], Row] = {}
        data = read_bytes(path) if path.exists() else b""
        lines = data.split(b"\n")[:-1]
        whole = sum(len(line) + 1 for line in lines)
        if whole < len(data):
            os.truncate(path, whole)
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                if number == 1:
                    same = (alike or settings.__eq__)(row["config"])
                else:
                    self.done[self._key(row)] = row
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidFileError(f"{path}:{number}: must be a row of this program, got {line[:40]!r}") from error
        if not lines:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append({"config": settings})
        elif not same:
            raise ConfigError(f"{path}: holds rows of another configuration. Name another file, or use that one")

    def add(self, row: Row) -> None:
        """Append a row, so that it stays if the machine stops."""
        self._append(row)
        self.done[self._key(row)] = row

    def _key(self, row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in self.key)

    def _append(self, row: Row) -> None:
        with self.path.open("ab") as file:
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
