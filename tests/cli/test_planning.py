"""The command `nas plan`: its table, its verdict, its exit code."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

SHORT = ("digits", "options.nodes=2", "task.batch=64", "search.steps=3", "retrain.stages.all.steps=3")


def test_a_plan_that_fits(nas: Callable[..., Any]) -> None:
    result = nas("plan", *SHORT, "--fit", "1TB", "--tries", "1")
    assert result.code == 0
    assert re.search(r"^search +\d+ .* 3 +[\d.e-]+ +[\d.e-]+ +[\d.e-]+$", result.out, re.M)
    assert result.out.endswith("search: fits into 953,674 MiB\nretrain: fits into 953,674 MiB\n")


def test_a_plan_that_does_not_fit(nas: Callable[..., Any], refused: Callable[..., str]) -> None:
    result = nas("plan", *SHORT, "--fit", "99MiB")
    assert result.code == 1
    assert "search: does not fit into 99 MiB\n  no change that was tried fits" in result.out
    assert refused("plan", "digits", "--fit", "8GiBs").endswith("got '8GiBs'")
