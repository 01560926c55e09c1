"""`nas benchmark`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tabulated import CSV

Nas = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture
def toy_file(tmp_path: Path) -> Path:
    path = tmp_path / "toy.csv"
    path.write_text(CSV, encoding="utf-8")
    return path


def test_the_shipped_tables_are_listed(nas: Nas) -> None:
    out = nas("benchmark").out
    assert re.search(r"^nas-bench-201 +nas-bench-201 +15,625 +c10, c100, in16 ", out, re.MULTILINE)
    assert re.search(r"^nas-bench-macro +nas-bench-macro +6,561 +c10 ", out, re.MULTILINE)


def test_a_shipped_table_needs_nothing_else(nas: Nas, tmp_path: Path) -> None:
    run = ("nas-bench-201", "random", "{name: evolution, population: 5}", "--seeds=3", "--evaluations=90")
    result = nas("benchmark", *run, "--out", tmp_path / "out")
    assert result.code == 0, result.err
    assert "15,625 networks, 3 seeds" in result.out
    assert "searchers see c10_val_e12; c10_test_e200 judges, at best 94.373" in result.out
    assert re.search(r"^random +90 +9\d\.\d+ ", result.out, re.MULTILINE)
    assert re.search(r"^evolution population=5 +90 +9\d\.\d+ ", result.out, re.MULTILINE)
    assert re.search(r"^random +93.700 +0.360 +9\d\.\d+ .* ICLR 2020, table 5$", result.out, re.MULTILINE)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"benchmark.html", "curves.csv", "regret.svg"}
    other = nas("benchmark", "nas-bench-201", "random", "--target=in16", "--seeds=2", "--evaluations=5").out
    assert "in16_test_e200 judges, at best 47.311" in other
    assert "Published" not in other


def test_a_table_of_a_file(nas: Nas, toy_file: Path) -> None:
    run = ("toy-pair", "random", "--table", toy_file, "--seeds=4", "--evaluations=50")
    result = nas("benchmark", *run, "--seen=val", "--judged=test", "--quiet")
    assert result.code == 0, result.err
    assert "toy.csv: 6 networks, 4 seeds" in result.out
    assert re.search(r"^random +50 +77.000 +0.000 +1.000 +1.000 +1.000 +0.0%$", result.out, re.MULTILINE)
    assert nas("benchmark", "{name: toy-pair, channels: 3}", *run[1:], "--seen=val", "--judged=test").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nas-bench-202",), "unknown table 'nas-bench-202' (did you mean 'nas-bench-201'?)"),
        (("nas-bench-201", "randon"), "unknown searcher 'randon' (did you mean 'random'?)"),
        (("nas-bench-201", "random", "random"), "searchers must differ, got 'random' twice"),
        (("nas-bench-201", "--evaluations=0"), "evaluations must be at least 1, got 0"),
        (("nas-bench-201", "--seeds=0"), "seeds must be at least 1, got 0"),
        (("nas-bench-201", "--target=c11"), "unknown target of table 'nas-bench-201' 'c11'"),
        (("nas-bench-201", "--seen=c10_val_e12"), "--seen and --judged must be given together"),
        (("nas-bench-201", "--seen=c10", "--judged=c10_val_e12"), "unknown column 'c10'"),
        (("nas-bench-201", "--importer=nas-bench-201"), "--importer needs --table"),
        (
            ("toy-pair", "--table", "FILE"),
            "needs the column that a searcher sees and the one that judges, of val, test",
        ),
        (("toy-pear", "--table", "FILE"), "unknown search space 'toy-pear'"),
        (("{name: toy-pair, channel: 3}", "--table", "FILE"), "option of space 'toy-pair' 'channel'"),
        (("nas-bench-201", "--table", "FILE"), "must have a row for each network of space 'nas-bench-201'"),
        (("toy-pair", "--table", "none.csv"), "none.csv: cannot be read"),
    ],
)
def test_mistakes_are_one_line(refused: Refused, toy_file: Path, arguments: tuple[str, ...], message: str) -> None:
    given = [str(toy_file) if argument == "FILE" else argument for argument in arguments]
    assert message in refused("benchmark", *given)
