"""Storages by text: what is opened, and the one line that refuses another."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.storages import RDBStorage

import processes
from nas.errors import ConfigError, MissingPackageError, without_password
from nas.searchers.storage import open_storage, storing


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("journal:a:b@c", "journal:a:b@c"),
        ("no url", "no url"),
    ],
)
def test_passwords_are_not_shown(url: str, expected: str) -> None:
    assert without_password(url) == expected
    if url != expected:
        with pytest.raises(ConfigError, match=r"^[^:]+://me:\*\*\*@127.0.0.1:1/db: ") as error, storing(url):
            open_storage("postgresql://me:secret@127.0.0.1:1/db")
        assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "package", "message"),
    [
        ("postgresql://host/db", "psycopg", r"needs the package psycopg: pip install 'tmics-nas\[postgresql\]'"),
        ("mysql+pymysql://host/db", "pymysql", r"^mysql\+pymysql://host/db needs the package pymysql. Install it"),
    ],
)
def test_a_driver_that_is_missing_is_named(
    url: str, package: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=message) as error:
        open_storage(url)
    assert isinstance(error.value, MissingPackageError) == (package == "psycopg")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_processes_that_open_a_new_database_at_once(kind: str, storage_url: Callable[[str], str]) -> None:
    url = storage_url(kind)
    opening = [processes.call(open_storage, url) for _ in range(4)]
    assert [processes.finish(process) for process in opening] == [0] * 4


def test_no_connection_is_kept(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/study.db")
    assert isinstance(storage, RDBStorage)
    assert storage.engine.pool.status() == "NullPool"
