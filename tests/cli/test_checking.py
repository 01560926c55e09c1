"""`nas check-hypergradient` on the toy space."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

import toy
from quadratic import METHODS

Nas = Callable[..., Any]
COMMAND = ("check-hypergradient", toy.CONFIG)


def rows(output: str) -> dict[str, list[str]]:
    """The cells of each row by its first one."""
    cells = [re.split(r"  +", line.strip()) for line in output.splitlines()]
    return {row[0]: row[1:] for row in cells if len(row) == 9}


def test_a_table_of_all_methods(nas: Nas) -> None:
    result = nas(*COMMAND, "options.channels=2")
    assert result.code == 0
    assert result.out.startswith("Gradient of 'upper' where 'lower' responds, against 1 exact step\n")
    found = rows(result.out)
    refused = {"closed", "conjugate_gradient", "implicit"}  # the loss is not quadratic, nor convex
    assert {name.split()[0] for name in found} == {"method", *METHODS} - refused
    for name in refused:
        assert re.search(f"skipped: .*'{name}'", result.out)
    assert found["first_order"][2:6] == ["–", "1", "2", "1"]  # two forward passes: the middle level unrolls
    assert found["unrolled steps=1"][:4] == ["1", "0", "1", "0"]
    assert float(found["finite_difference"][0]) == pytest.approx(1, abs=1e-3)
    assert float(found["finite_difference"][5]) > 1


def test_the_seed_of_the_configuration_decides_all(nas: Nas) -> None:
    def accuracy(*overrides: str) -> list[str]:
        return rows(nas(*COMMAND, *overrides, "--method", "finite_difference").out)["finite_difference"][:4]

    assert accuracy() == accuracy()
    assert accuracy() != accuracy("seed=1")


def test_methods_with_arguments_another_level_and_a_later_step(nas: Nas) -> None:
    method = "{name: neumann, terms: 3, step_size: 0.1}"
    result = nas(*COMMAND, "--method", method, "--steps", 3, "--after", 2, "--below", "middle", "--double")
    assert "Gradient of 'upper' where 'middle' responds, against 3 exact steps" in result.out
    assert list(rows(result.out))[1:] == ["first_order", "unrolled steps=3", "neumann terms=3 step_size=0.1"]


def test_a_method_that_cannot_work_is_left_out(nas: Nas) -> None:
    result = nas(*COMMAND, "--method", "{name: implicit, limit: 3}", "--method", "gauss_newton")
    assert result.code == 0
    assert list(rows(result.out))[1:] == ["first_order", "unrolled steps=1", "gauss_newton"]
    assert "response of 'lower' by 'implicit': " in result.out


def test_a_tolerance_that_is_exceeded_is_exit_code_1(nas: Nas) -> None:
    tolerances = ("--tolerance", "finite_difference=0.01", "--tolerance", "first_order=0.01")
    methods = ("--method", "finite_difference", "--method", "first_order")
    result = nas(*COMMAND, *methods, *tolerances)
    assert result.code == 1
    assert re.fullmatch(r"nas: first_order: relative error 0\.\d+, allowed 0\.01\n", result.err)
    assert nas(*COMMAND, "--method", "finite_difference", "--tolerance", "finite_difference=0.01").code == 0
    assert nas(*COMMAND, "--method", "finite_difference", "--tolerance", "finite_difference=1e-30").code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "neuman"), r"unknown hypergradient 'neuman' \(did you mean 'neumann'\?\)"),
        (("--method", "{name: neumann, term: 2}"), r"--method neumann.term .*\(did you mean 'terms'"),
        (("--method", "{terms: 2}"), "--method "),
        (("--tolerance", "unroled=1"), r"unknown method of --tolerance 'unroled' \(did you mean 'unrolled'\?\)"),
        (("--tolerance", "unrolled=much"), "got 'unrolled=much'"),
        (("--tolerance", "unrolled"), "got 'unrolled'"),
        (("--steps", 0), "unrolled.steps must .*got 0"),
        (("--after", -1), "--after must be at least 0 steps, got -1"),
        (("--level", "lower"), "level 'lower' has no level below it"),
        (("search.levels.uper.period=2",), "uper"),
    ],
)
def test_mistakes(refused: Callable[..., str], arguments: tuple[object, ...], message: str) -> None:
    assert re.search(message, refused(*COMMAND, *arguments))


def test_help_teaches(nas: Nas) -> None:
    out = " ".join(nas("check-hypergradient", "--help").out.split())
    for told in ("exit code is 1", "Repeatable", "key.path=value", "forward passes"):
        assert told in out
