"""The package's API: few names, each loaded when first used, each with an example that runs."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import nas
import nas.files


def run(*arguments: str) -> str:
    command = [sys.executable, "-c", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(nas.__file__).parents[1])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_does_not_import_torch() -> None:
    assert run("import sys, nas; print('torch' in sys.modules, 'nas.supernet' in dir(nas), nas.NASError)") == (
        "False False <class 'nas.errors.NASError'>"
    )
    light = "nas.Genotype, nas.OperationSet, nas.operation, nas.register, nas.__version__, nas.front, dir(nas)"
    assert run(f"import sys, nas; {light}; print('torch' in sys.modules)") == "False"


def test_every_exported_name_is_there() -> None:
    assert 20 <= len(nas.__all__) <= 28
    assert list(nas.__all__) == sorted(nas.__all__)
    for name in nas.__all__:
        found = getattr(nas, name)
        assert getattr(importlib.import_module(found.__module__), name) is found
        assert name in dir(nas)
        assert not (Path(nas.__file__).parent / name).exists(), "a name does not hide a package"
    assert nas.__version__ == importlib.metadata.version("tmics-nas")


def test_other_names_are_not() -> None:
    for module in (nas, nas.space):
        with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'nothing'"):
            _ = module.nothing
    with pytest.raises(ImportError):
        from nas import nothing  # noqa: F401


EACH = """
import os, sys, torch
for code in sys.argv[1:]:
    if os.fork() == 0:
        exec(code)
        sys.stdout.flush()
        os._exit(0)
    assert os.wait()[1] == 0, code
"""
"""Runs programs that see a fresh `nas`, without importing torch for each."""


def test_modules_are_found_when_they_are_looked_up() -> None:
    names = "nas.run, nas.space.cell, nas.run.task, nas.export.source.definitions, nas.front.running"
    found = [
        f"import nas; {first}assert [m.__name__ for m in ({names})] == {names.split(', ')}"
        for first in ("", "nas.Supernet; ", "import nas.export; ")
    ]
    run(
        EACH,
        *found,
        "from nas import space, Supernet; assert (space.__name__, Supernet.__name__) == ('nas.space', 'Supernet')",
        "from nas import OperationSet; assert 'none' in OperationSet.of('darts')",  # registered without an import
    )


# --- examples ---


def examples() -> dict[str, doctest.DocTest]:
    """The examples in the docstrings of exported names and of their public methods, by name."""
    found = {}
    for name in nas.__all__:
        for test in doctest.DocTestFinder(recurse=True, exclude_empty=True).find(getattr(nas, name), f"nas.{name}"):
            if test.examples:
                found[test.name] = test
    return found


@pytest.mark.parametrize("name", nas.__all__)
def test_every_name_has_an_example(name: str) -> None:
    assert f"nas.{name}" in examples(), f"write an Example in the docstring of nas.{name}"


@pytest.fixture
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, and registries that forget what an example adds to them."""
    monkeypatch.chdir(tmp_path)
    for kind in nas.registry.kinds.values():
        monkeypatch.setattr(kind, "_registered", dict(kind._registered))


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize("name", examples())
def test_an_example_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    test = examples()[name]
    test.globs = {"nas": nas, "torch": torch, "nn": torch.nn, "__name__": "examples"}
    runner: Any = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    runner.run(test, clear_globs=False)
    assert runner.summarize(verbose=False).failed == 0, capsys.readouterr().out
