"""Optuna's journal file, with lines that are written completely or not at all."""

from __future__ import annotations

import errno
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from nas.errors import InvalidFileError
from nas.files import writing

_BLOCK = 1 << 16
_BEGINNING = b'{"op_code":'
"""How Optuna begins each record."""


class Journal(JournalFileBackend):
    """A journal that stays readable after a full disk or a kill: an incomplete last line is removed.

    Optuna's own appends to the remains, after which nothing can be read.
    """

    def __init__(self, path: Path) -> None:
        """Raises `InvalidFileError` for a file that cannot be written, or with a line that is no record of a journal;
        warns if the last line was cut."""
        self._path = path
        self._symlink = JournalFileSymlinkLock(str(path))
        with writing(path):
            super().__init__(str(path), self._symlink)
        with self._locked() as file:
            end = _whole(file)
            file.seek(0)
            *lines, cut = file.read().split(b"\n")
            for number, line in enumerate([*lines, cut], 1):
                if not (_is_record(line) if number <= len(lines) else line.startswith(_BEGINNING[: len(line)])):
                    raise InvalidFileError(f"{path}:{number}: not a record of a study; remove this line, or restore it")
            if cut:
                file.truncate(end)
                warnings.warn(f"{path}: the last line was cut, by a full disk or a kill; removed it", stacklevel=2)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records to the journal, all or none; raises `InvalidFileError` if it cannot be written."""
        data = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with self._locked() as file:
            end = _whole(file)
            try:
                file.seek(end)
                file.truncate()
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except BaseException:
                with suppress(OSError):
                    os.truncate(self._path, end)
                raise

    @contextmanager
    def _locked(self) -> Iterator[IO[bytes]]:
        """The file, unbuffered and locked against other processes."""
        with writing(self._path):
            self._symlink.acquire()
            try:
                with self._path.open("r+b", buffering=0) as file:
                    yield file
            finally:
                self._symlink.release()


def _whole(file: IO[bytes]) -> int:
    """The length of the file up to the end of its last complete line."""
    start = file.seek(0, os.SEEK_END)
    while start > 0:
        end, start = start, max(start - _BLOCK, 0)
        file.seek(start)
        if (found := file.read(end - start).rfind(b"\n")) >= 0:
            return start + found + 1
    return 0


def _is_record(line: bytes) -> bool:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and type(record.get("op_code")) is int and isinstance(record.get("worker_id"), str)
