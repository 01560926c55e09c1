"""Mutants of a source, what they are run on, and the list of those that survive."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = '''
def f(x: Annotated[int, Meta(ge=3)] = 2, *, text: str = "a-1") -> "list[1]":
    """One - two."""
    y = -x * (3.0 -
              x.norm().detach() ** 2)
    y += 0
    return y if y > x % 2 else f"{y + 1}" + "b"
'''


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], ModuleType]) -> Any:
    return load_tool("mutate")


def test_operators_numbers_signs_and_detach_change_one_at_a_time(tool: Any) -> None:
    found = tool.mutants("nas/f.py", SOURCE)
    changes = [mutant.name.rpartition(": ")[2] for mutant in found]
    assert changes == [
        "2 -> 3",
        "- -> nothing",
        "* -> /",
        "3.0 -> 6.0",
        "- -> +",
        ".detach() -> nothing",
        "** -> *",
        "2 -> 3",
        "+= -> -=",
        "0 -> 1",
        "% -> //",
        "2 -> 3",
    ]
    assert len({mutant.name for mutant in found}) == len(found)
    data = SOURCE.encode()
    for mutant in found:
        changed = (data[: mutant.start] + mutant.new.encode() + data[mutant.end :]).decode()
        assert compile(changed, "f", "exec")
        differing = [pair for pair in zip(SOURCE.splitlines(), changed.splitlines(), strict=True) if len(set(pair)) > 1]
        assert len(differing) == 1
        assert mutant.name.startswith(f"nas/f.py: {differing[0][0].strip()}: ")


def test_modules_that_import_a_file_are_not_imported_before_it(tool: Any) -> None:
    kept = tool.independent("nas/relaxation/sampling.py")
    assert "nas.space.mixed" in kept
    assert not {"nas.relaxation.sampling", "nas.relaxation.gumbel", "nas.supernet", "nas.run.searching"} & {*kept}


def test_every_listed_file_test_and_survivor_exists(tool: Any) -> None:
    plan = tool.read_plan()
    assert all((ROOT / path).is_file() for path, tests in plan.tests.items() for path in (path, *tests))
    assert all("nas/" in path for path in plan.tests)
    names = {mutant.name for path in plan.tests for mutant in tool.mutants(path, (ROOT / path).read_text())}
    listed = [name for survivor in plan.survivors for name in survivor.mutants]
    assert len(listed) == len({*listed})
    assert not {*listed} - names, "fix or remove what no longer exists"
    assert all(survivor.reason for survivor in plan.survivors)


@pytest.mark.slow
def test_a_mutant_is_killed_and_the_file_stays_as_it_is(tool: Any, tmp_path: Path) -> None:
    path = ROOT / "nas/relaxation/gumbel_soft.py"
    before, results = path.read_text(), tmp_path / "results.jsonl"
    command = [
        sys.executable,
        str(ROOT / "tools/mutate.py"),
        "--results",
        str(results),
        "--only",
        "gumbel_soft.py: return ((logits",
    ]
    for ran in (True, False):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith("killed") == ran, "what is known is not run again"
        assert "0 survived" in done.stdout.splitlines()[-1]
    assert path.read_text() == before
