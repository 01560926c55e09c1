"""`nas` as a function, in the process of the tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import toy
from nas.cli import main


class Result(NamedTuple):
    code: int
    out: str
    err: str


Nas = Callable[..., Result]


@pytest.fixture
def nas(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Nas:
    """Run `nas` with arguments; what is no mistake of the user raises."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["nas", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def refused(nas: Nas) -> Callable[..., str]:
    """Run `nas` with a mistake in the arguments; returns the one line that it answers."""

    def run(*arguments: object) -> str:
        result = nas(*arguments)
        assert result.code == 2, result
        assert result.out == ""
        assert result.err.startswith("nas: ")
        assert result.err.count("\n") == 1
        assert result.err.endswith("\n")
        return result.err.strip()

    return run


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short search, by the command."""
    folder = tmp_path_factory.mktemp("searched") / "search"
    with pytest.MonkeyPatch.context() as patch:
        arguments = ["search", str(toy.CONFIG), "search.steps=12", "search.epochs=4", "--out", str(folder), "--quiet"]
        patch.setattr(sys, "argv", ["nas", *arguments])
        main()
    return folder
