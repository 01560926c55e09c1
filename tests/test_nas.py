"""The package's API: few names, each loaded when first used."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import nas


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(nas.__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_does_not_import_torch() -> None:
    assert run("import sys, nas; print('torch' in sys.modules, 'nas.supernet' in dir(nas), nas.NASError)") == (
        "False False <class 'nas.errors.NASError'>"
    )
    assert (
        run("import sys, nas; nas.Genotype, nas.OperationSet, nas.operation; print('torch' in sys.modules)") == "False"
    )


def test_every_exported_name_is_there() -> None:
    assert len(nas.__all__) <= 15
    assert list(nas.__all__) == sorted(nas.__all__)
    for name in nas.__all__:
        found = getattr(nas, name)
        assert getattr(importlib.import_module(found.__module__), name) is found
        assert name in dir(nas)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="module 'nas' has no attribute 'nothing'"):
        _ = nas.nothing
    with pytest.raises(ImportError):
        from nas import nothing  # noqa: F401


def test_modules_are_found_beside_the_names() -> None:
    assert run("from nas import choose, Supernet; print(choose.__name__, Supernet.__name__)") == "nas.choose Supernet"


def test_the_usual_operations_need_no_import() -> None:
    code = "from nas import OperationSet; print('none' in OperationSet.of('darts'))"
    assert run(code) == "True"
