"""`nas correlate`."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tabulated import CSV

Nas = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> list[str]:
    path = tmp_path / "toy.csv"
    path.write_text(CSV, encoding="utf-8")
    return ["toy-pair", "--table", str(path), "--out", str(tmp_path / "out")]


def test_the_population_and_the_column_stand_beside_each_figure(nas: Nas, run: list[str], tmp_path: Path) -> None:
    command = ["correlate", *run, "params", "naswot", "--column=test", "--input=4x2x6x6", "--sample=3"]
    first = nas(*command)
    assert first.code == 0, first.err
    assert "toy.csv: 6 networks; scores against test" in first.out
    assert re.search(r"^params +– +6 +6 +test +-?\d\.\d{4} ", first.out, re.MULTILINE)
    assert re.search(r"^naswot +noise 4x2x6x6 +3 +6 +test +", first.out, re.MULTILINE)
    path = tmp_path / "out" / "scores.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["score"] for row in rows] == ["params"] * 6 + ["naswot"] * 3
    assert {row["inputs"] for row in rows} == {"noise 4x2x6x6, seed 0"}

    changed = path.read_text(encoding="utf-8").replace(rows[0]["value"], "1000000000.0")
    path.write_text(changed, encoding="utf-8")
    assert nas(*command).code == 0
    assert path.read_text(encoding="utf-8") == changed  # resumed: nothing is computed again
    assert nas(*command, "--seed=1").code == 0
    assert path.read_text(encoding="utf-8").startswith(changed)  # those of other inputs stay


TEST, INPUT = "--column=test", "--input=4x2x6x6"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("parms", TEST, INPUT), "unknown score 'parms' (did you mean 'params'?)"),
        (("params", "params", TEST, INPUT), "scores must differ, got 'params' twice"),
        (("params", "--column=tes", INPUT), "unknown column 'tes' (did you mean 'test'?)"),
        (("params", TEST, INPUT, "--sample=1"), "a sample must have at least 2 networks, got 1"),
        (("params", TEST, "--set=task.batch=4"), "--set needs --config, got 'task.batch=4' alone"),
        (("params", TEST, INPUT, "--config=digits"), "--config gives the batch and the seed"),
        (("params",), "needs a column to compare with, of val, test"),
        (("params", TEST), "needs the shape of the inputs"),
    ],
)
def test_mistakes_are_one_line(refused: Refused, run: list[str], arguments: tuple[str, ...], message: str) -> None:
    assert message in refused("correlate", *run, *arguments)


def test_a_file_of_another_table(refused: Refused, run: list[str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scores.csv").write_text("table,inputs,score,network,value\nmine,noise,params,8:conv,1\n")
    assert "row 1 must be of table 'toy.csv', got mine" in refused("correlate", *run, "params", TEST, INPUT)
