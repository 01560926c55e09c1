"""The table of relaxations in the documentation is that of the registry."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from nas.registry import kind


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], ModuleType]) -> Any:
    return load_tool("relaxations")


def test_the_table_is_current_and_complete(tool: Any) -> None:
    page = tool.PAGE.read_text(encoding="utf-8")
    assert tool.updated(page) == page, "run tools/relaxations.py"
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    ours = {name for name, origin in kind("relaxation").names().items() if origin.startswith("nas.")}
    table = {row[0].strip("`"): row[1:] for row in rows if len(row) == 8 and row[0] != "`name`"}
    assert set(table) == ours
    for name, (paper, *_) in table.items():
        assert "et al., " in paper or " and " in paper, name
    assert [table["gumbel_soft"][i] for i in (1, 2, 3)] == ["yes", "yes", "`temperature` from 1 to 0.03, linear"]
    assert [table["sigmoid"][i] for i in (1, 2, 3, 6)] == ["no", "no", "none", "yes"]
    assert [table["binary_gates"][i] for i in (1, 5, 6)] == ["yes", "yes", "no"]
