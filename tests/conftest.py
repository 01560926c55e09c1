"""What every test shares: one thread per process, reproducible examples, the toys, the folder of real data."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

# Before anything imports torch: pytest-xdist's workers share the cores, as do the commands that tests run.
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).parent / "toys"))  # modules for tests and for `--import`

# Shared machines stall, so no deadline; derandomized, so that a failure is everybody's failure.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """What a test draws does not depend on which tests ran before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real clips and tables that `NAS_DATA` names; the test is skipped where it is not set."""
    if "NAS_DATA" not in os.environ:
        pytest.skip("NAS_DATA is not set")
    return Path(os.environ["NAS_DATA"])


@pytest.fixture(scope="session")
def _postgresql() -> Iterator[str]:
    """The URL of a server for this session; the test is skipped where none can be started."""
    import databases

    pytest.importorskip("psycopg")
    try:
        running = databases.server()
        url = running.__enter__()
    except databases.UnavailableError as error:
        pytest.skip(str(error))
    yield url
    running.__exit__(None, None, None)


@pytest.fixture
def storage_url(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Makes the URL of a new storage of a kind: `journal`, `sqlite` or `postgresql`."""

    def make(kind: str) -> str:
        if kind == "journal":
            return f"journal:{tmp_path}/study.log"
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/study.db"
        return new_database(request.getfixturevalue("_postgresql"))

    return make


def new_database(server: str) -> str:
    """Make a database of a server; returns its URL."""
    import psycopg

    name = f"nas_{secrets.token_hex(4)}"
    with psycopg.connect(server.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.format(name)
