"""Run conformance tests outside of a test suite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nas.errors import NASError


class Outcome(NamedTuple):
    """The outcome of one conformance test."""

    test: str
    """What it tests, in words."""
    error: str
    """Why it failed, in one line; empty if it passed."""


def run_tests(tests: object) -> Iterator[Outcome]:
    """Run the tests of an instance of a conformance class, one by one."""
    for name in dir(tests):
        if name.startswith("test_"):
            yield Outcome(name.removeprefix("test_").replace("_", " "), _error(tests, name))


def _error(tests: object, name: str) -> str:
    try:
        getattr(tests, name)()
    except Exception as error:  # noqa: BLE001 - whatever the tested object raises is a failure of this test
        kind = "" if isinstance(error, AssertionError | NASError) else f"{type(error).__name__}: "
        return " ".join(f"{kind}{error}".split()) or type(error).__name__
    return ""
