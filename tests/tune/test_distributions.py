"""Distributions as text, and what is drawn from them."""

from __future__ import annotations

import math

import optuna
import pytest

from nas.errors import ConfigError
from nas.files import parse_yaml
from nas.tune.distributions import Distribution, grid_size, grid_values, split


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("log(1e-4, 1e-1)", Distribution("log", (1e-4, 1e-1))),
        ("float(0,1)", Distribution("float", (0, 1))),
        ("grid(0, [1])", Distribution("grid", ("0", "[1]"))),
        (" int( 3 , 20 ) ", Distribution("int", (3, 20))),
        ("choice(constant, cosine)", Distribution("choice", ("constant", "cosine"))),
        (
            "choice([0.5, 0.999], {name: sgd}, true, '8')",
            Distribution("choice", ("[0.5,0.999]", '{"name":"sgd"}', "true", '"8"')),
        ),
    ],
)
def test_parse(text: str, expected: Distribution) -> None:
    assert Distribution.parse(text, "k") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1e-3", r"k must be a distribution such as log\(1e-4, 1e-1\), got '1e-3'"),
        ("lgo(1, 2)", r"k: unknown distribution 'lgo' \(did you mean 'log'\?\); known: float, log, int, choice, grid"),
        ("log(0, 1)", r"k must have numbers above 0, got 'log\(0, 1\)'"),
        ("float(1, 0)", "must be float.low, high., two numbers, the lower one first"),
        ("float(1)", "two numbers"),
        ("float(a, b)", "two numbers"),
        ("int(1, 2.5)", "two whole numbers"),
        ("int(true, 3)", "two whole numbers"),
        ("grid()", "k must have a value to choose"),
        ("grid(1, 2, 1)", "k must have different values, got 'grid.1, 2, 1.'"),
        ("choice()", "must have a value to choose"),
        ("choice([)", "k:1: not valid YAML"),
    ],
)
def test_what_is_no_distribution(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Distribution.parse(text, "k")


def test_split_lets_overrides_go_first() -> None:
    section = {"a.b": "int(1, 2)", "c": "float(0, 1)", "d": "log(1, 2)"}
    plain, drawn = split(["x=3", "a.b=int(5, 9)", "c=0.5", "e=choice(p, q)"], section)
    assert plain == ["x=3", "c=0.5"]
    assert {key: distribution.arguments for key, distribution in drawn.items()} == {
        "a.b": (5, 9), "d": (1, 2), "e": ("p", "q"),
    }  # fmt: skip


def test_grids_run_all_combinations_in_turn() -> None:
    texts = {"a": "grid(x, y)", "b": "int(0, 9)", "c": "grid(1, 2, 3)"}
    drawn = {key: Distribution.parse(text, key) for key, text in texts.items()}
    found = [tuple(grid_values(drawn, number).get(key) for key in "abc") for number in range(7)]
    product = [(a, None, c) for a in "xy" for c in "123"]
    assert found == [*product, product[0]]
    assert grid_size(drawn) is None
    assert grid_size({key: drawn[key] for key in "ac"}) == 6


def test_draws_are_yaml_of_the_right_kind_and_spread() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    texts = {"log": "log(1e-4, 1)", "float": "float(-1, 1)", "int": "int(2, 5)", "choice": "choice([0, 1], x)"}
    drawn = {kind: Distribution.parse(text, kind) for kind, text in texts.items()}
    values: dict[str, list[object]] = {kind: [] for kind in texts}
    for _ in range(200):
        trial = study.ask()
        for kind, distribution in drawn.items():
            text = distribution.draw(trial, kind)
            assert distribution.draw(trial, kind) == text
            values[kind].append(parse_yaml(text, kind))
    logs = sorted(math.log10(value) for value in values["log"])  # type: ignore[arg-type]
    assert logs[0] >= -4
    assert logs[-1] <= 0
    assert -2.3 < logs[100] < -1.7  # the median of a log-uniform distribution
    assert set(values["int"]) == {2, 3, 4, 5}
    assert -1 <= min(values["float"]) < -0.9  # type: ignore[type-var,operator]
    assert all(value in ([0, 1], "x") for value in values["choice"])
