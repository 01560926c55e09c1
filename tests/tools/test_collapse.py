from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from nas.run.config import load_config

TINY = {
    **{"task.batch": 4, "options.channels": 2, "options.cells": 3, "options.nodes": 1},
    **{"search.steps": 2, "search.epochs": 1, "retrain.stages.all.steps": 2},
}


@pytest.fixture(scope="module")
def collapse(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("collapse")


def fake(method: str, seed: int, skips: float, accuracy: float, setting: str = "fast") -> dict[str, Any]:
    setting = "" if method == "random" else setting
    return {"setting": setting, "method": method, "seed": seed, "skips": skips, "accuracy": accuracy}


RANDOM = [fake("random", seed, 0.5, 0.7 + seed / 100) for seed in range(3)]  # their median is 0.71


@pytest.mark.parametrize(
    ("skips", "accuracy", "expected"), [(0.5, 0.70, True), (0.49, 0.70, False), (0.5, 0.71, False), (1.0, 0.72, False)]
)
def test_a_collapse_needs_skips_and_a_low_accuracy(
    collapse: ModuleType, skips: float, accuracy: float, expected: bool
) -> None:
    row = fake("darts", 0, skips, accuracy)
    assert collapse.collapsed(row, collapse.median_of_random([*RANDOM, row])) is expected


def test_nothing_collapses_without_random_networks(collapse: ModuleType) -> None:
    row = fake("darts", 0, 1.0, 0.0)
    assert collapse.collapsed(row, collapse.median_of_random([row])) is False


@pytest.mark.parametrize(
    ("bad", "remedied", "expected"),
    [
        (4, 1, ("collapses", "prevents it")),
        (5, 2, ("collapses", "does not prevent it")),
        (3, 0, ("does not collapse", "DARTS does not collapse here")),
    ],
)
def test_verdicts_over_five_searches(
    collapse: ModuleType, bad: int, remedied: int, expected: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*RANDOM]
    for method, count in (("darts", bad), ("beta decay", remedied)):
        rows += [fake(method, seed, 1.0 if seed < count else 0.0, 0.6) for seed in range(5)]
    found = collapse.rates(rows)
    assert found == {("fast", "darts"): (bad, 5), ("fast", "beta decay"): (remedied, 5)}
    assert tuple(collapse.verdict(found, "fast", method) for method in ("darts", "beta decay")) == expected
    collapse.print_table(rows)
    printed = capsys.readouterr().out
    assert "median accuracy of 3 random networks: 71.00 %" in printed
    assert ("DARTS collapses in none of these settings" in printed) == (bad < 4)


def test_every_method_fits_and_shares_the_learning_rate(collapse: ModuleType) -> None:
    assert len(collapse.SETTINGS) <= 4
    plain = msgspec.to_builtins(load_config(collapse.CONFIG))
    for setting in collapse.SETTINGS.values():
        rates = {
            load_config(plain, {**setting, **method}).search.levels["upper"].optimizer["lr"]
            for method in collapse.METHODS.values()
        }
        assert len(rates) == 1


@pytest.mark.parametrize(
    ("collapsing", "darts", "remedies_in"),
    [
        ({"fast": 5}, {"fast": 5}, "fast"),
        ({"fast": 4}, {"fast": 5}, "fast"),
        ({"fast": 3, "short": 5}, {"fast": 5, "short": 5}, "short"),
        ({"long": 5}, {"fast": 2, "short": 2, "long": 5}, "long"),
        ({}, {"fast": 2, "short": 2, "long": 2, "long, fast": 2}, None),
    ],
)
def test_settings_are_tried_until_darts_collapses(
    collapse: ModuleType, collapsing: dict[str, int], darts: dict[str, int], remedies_in: str | None, tmp_path: Path
) -> None:
    rows = collapse.ResultRows(tmp_path / "rows.jsonl", ("setting", "method", "seed"), "")
    counted: dict[tuple[str, str], int] = {}
    for setting, method, seed in collapse.planned(rows, collapse.SETTINGS, 5, 3):
        bad = seed < collapsing.get(setting, 0) and method == "darts"
        row = RANDOM[seed] if method == "random" else fake(method, seed, float(bad), 0.6, setting)
        rows.add(row)
        counted[setting, method] = counted.get((setting, method), 0) + 1
    remedies = [method for method in collapse.METHODS if method != "darts"]
    assert {setting: count for (setting, method), count in counted.items() if method == "darts"} == darts
    assert {key for key in counted if key[1] in remedies} == {(remedies_in, m) for m in remedies if remedies_in}
    assert all(counted[key] == 5 for key in counted if key[1] in remedies)


def test_a_study_runs_continues_and_draws(
    collapse: ModuleType,
    few_images: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(collapse, "SETTINGS", {"tiny": {}})
    tiny = [f"{key}={value}" for key, value in (TINY | {"task.data": few_images}).items()]
    rows, drawn = tmp_path / "rows.jsonl", tmp_path / "cells.svg"
    command = ["collapse.py", str(rows), "--seeds", "1", "--random", "1", "--settings", "tiny", "--set", *tiny]
    monkeypatch.setattr(sys, "argv", command)
    collapse.main()
    assert rows.read_text().count("\n") == 3  # settings, a random network, DARTS
    printed = capsys.readouterr().out
    assert "darts" in printed
    before = rows.read_bytes()
    monkeypatch.setattr(sys, "argv", [*command, "--picture", str(drawn)])
    collapse.main()
    assert rows.read_bytes() == before
    assert len(ElementTree.parse(drawn).getroot().findall(f"{{{collapse.SVG}}}svg")) == 1


def test_an_unknown_setting_is_one_line(collapse: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["collapse.py", str(tmp_path / "rows.jsonl"), "--settings", "slow"])
    with pytest.raises(SystemExit, match=r"error: --settings must name some of fast, .*, got slow"):
        collapse.main()
