"""Storages of Optuna, by text: a journal file, or a database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.study import Study
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from nas.errors import ConfigError, InvalidFileError, MissingPackageError, without_password
from nas.searchers.journal import Journal

JOURNAL = "journal:"
TRIES = 5
"""How often tables are made, if another process makes them too."""
SQLITE_SECONDS = 60
"""The longest time that a process waits for others to write to a file of SQLite."""


@contextmanager
def storing(url: str) -> Iterator[None]:
    """Inside, errors of the database become a `ConfigError` that starts with its URL."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ or error
        raise ConfigError(
            f"{without_password(url)}: {str(cause).partition(chr(10))[0]}; fix this, then run the same command again"
        ) from error


def open_storage(url: str) -> BaseStorage:
    """Open a storage: `journal:FILE`, or the URL of a database.

    Raises:
        ConfigError: the text names no storage, or one that cannot be used.
        InvalidFileError: the file is no journal of a study.
    """
    if url.startswith(JOURNAL):
        path = Path(url.removeprefix(JOURNAL))
        if not path.parent.is_dir() or path.is_dir():
            found = "a folder" if path.is_dir() else f"no folder {path.parent}"
            raise ConfigError(f"{url} must name a file in a folder that exists, got {found}")
        journal = Journal(path)
        try:
            return JournalStorage(journal)
        except Exception as error:  # records that are none of a study make it raise anything
            raise InvalidFileError(f"{path}: not the journal of a study ({type(error).__name__})") from error
    if "://" not in url:
        raise ConfigError(
            f"a storage must be journal:FILE or the URL of a database, such as sqlite:///f.db, got '{url}'"
        )
    try:
        return _database(make_url(url))
    except SQLAlchemyError as error:
        raise ConfigError(f"{without_password(url)}: {str(error).partition(chr(10))[0]}") from error
    except ImportError as error:
        driver = getattr(error.__cause__, "name", None)
        if driver == "psycopg":
            raise MissingPackageError(f"{without_password(url)} needs the package psycopg", "postgresql") from error
        raise ConfigError(
            f"{without_password(url)} needs the package {driver or 'of its driver'}. Install it"
        ) from error


def _database(url: URL) -> RDBStorage:
    """Open a database, whose tables are made if it has none."""
    options: dict[str, Any] = {}
    if url.database not in (None, "", ":memory:"):  # no connection is kept during a training
        options["poolclass"] = NullPool
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": SQLITE_SECONDS}
    text = url.render_as_string(hide_password=False)
    for _ in range(TRIES - 1):
        with suppress(IntegrityError, OperationalError, ProgrammingError):  # another process makes them at this moment
            return RDBStorage(text, options)
        time.sleep(0.1)
    return RDBStorage(text, options)


def open_study(**options: Any) -> Study:
    """Create a study, or open it if it exists: `optuna.create_study` without its log messages.

    Optuna's level of logging is the process's, so it is restored.
    """
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(**options, load_if_exists=True)
    finally:
        optuna.logging.set_verbosity(before)
