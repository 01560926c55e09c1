"""Each promise of docs/promises.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
PROMISES = [row for row in re.findall(r"^\| (.+) \| (.+) \|$", PAGE, re.MULTILINE) if "::" in row[1]]


def test_there_are_promises() -> None:
    rows = re.findall(r"^\| [A-Z`][^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE)
    assert len(PROMISES) == len(rows) - PAGE.count("| Promise | Test |"), "each row names a test"


@pytest.mark.parametrize(("promise", "cited"), PROMISES, ids=[promise[:60] for promise, _ in PROMISES])
def test_a_promise_names_tests_that_exist(promise: str, cited: str) -> None:
    file = ""
    for name in re.findall(r"`([^`]+)`", cited):
        path, separator, test = name.rpartition("::")
        file = path if separator else file
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, name
