"""The shipped tables are what the tool makes of the original ones."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nas.benchmark.table import find_table
from search_spaces.nas_bench_201 import arch_of, genotype_of


def test_the_shipped_tables_are_up_to_date(
    data_root: Path, load_tool: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tool: Any = load_tool("nas_tables")
    monkeypatch.setattr("sys.argv", ["nas_tables.py", "--check"])
    assert tool.main() == 0
    monkeypatch.setattr(tool, "FOLDER", tmp_path)
    monkeypatch.setattr(tool, "TABLES", {"nas_bench_macro": tool.nas_bench_macro})
    assert tool.main() == 1
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("sys.argv", ["nas_tables.py"])
    assert tool.main() == 0
    monkeypatch.setattr("sys.argv", ["nas_tables.py", "--check"])
    assert tool.main() == 0


def test_cells_have_the_accuracies_of_the_original_table(data_root: Path) -> None:
    table = find_table("nas-bench-201")
    with gzip.open(data_root / "nas" / "nb201_table.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))[::500]
    for row in rows:
        at = table.row(genotype_of(row["arch"]).choices)
        assert arch_of(table.genotype(at)) == row["arch"]
        assert [float(row[name]) for name in table.columns] == [column[at] for column in table.columns.values()]
