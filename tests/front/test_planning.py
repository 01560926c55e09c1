"""Sizes, the verdict, and proposals that fit."""

from __future__ import annotations

from typing import Any

import pytest

import nas
from nas.errors import ConfigError
from nas.files import parse_yaml
from nas.front.planning import Planned, bytes_of, divided, effect_of_division

MIB = 2**20


@pytest.mark.parametrize(
    ("text", "expected"), [("8GiB", 8 * 2**30), ("1.5 MB", 1_500_000), ("2g", 2 * 10**9), ("700", 700), ("1KiB", 1024)]
)
def test_sizes(text: str, expected: int) -> None:
    assert bytes_of(text) == expected


@pytest.mark.parametrize("text", ["", "GiB", "8GiBs", "-1GB", "0", "1e9", "eight", "8 XB", "9" * 10])
def test_a_bad_size_is_one_clear_line(text: str) -> None:
    with pytest.raises(ConfigError, match="such as 8GiB") as error:
        nas.plan("digits", fit=text)
    assert f"got '{text}'" in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "named"), [("device", "meta", "got 'meta'"), ("search.searcher", "random", "searcher")]
)
def test_what_cannot_be_planned_is_refused(key: str, value: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        nas.plan(nas.load_config("digits", {key: value}), tries=0)


def planned(changes: dict[str, Any], fit: int, tries: int = 0) -> Planned:
    short = {"options.nodes": 2, "options.channels": 16, "task.batch": 512, "retrain": None}
    return nas.plan(nas.load_config("digits", {**short, **changes}), fit=fit, tries=tries).works["search"]


def test_what_fits_is_timed() -> None:
    whole = planned({"search.steps": 6}, 2**40, tries=2)
    assert whole.fits
    assert whole.speed is not None
    assert whole.speed.step * whole.steps == pytest.approx(whole.speed.whole)
    assert 0 < whole.speed.step < 10


def test_what_is_proposed_fits_the_exact_change_first() -> None:
    need = planned({}, 2**40).need
    room = need.memory - round(0.2 * need.tensors)
    found = planned({}, room)
    assert (found.fits, found.speed) == (False, None)
    first, *others = found.proposals
    assert first.effect == ""
    assert others
    assert all(other.effect for other in others)
    for proposal in found.proposals:
        changes = dict(each.split("=", 1) for each in proposal.overrides)
        assert nas.load_config("digits", list(proposal.overrides)).task["batch"] <= 512
        again = planned({key: parse_yaml(value, key) for key, value in changes.items()}, room + 20 * MIB)
        assert again.fits, proposal


@pytest.mark.parametrize(
    ("name", "changes", "effect"),
    [
        ("demo", {}, "batch norms see smaller batches"),
        ("demo", {f"search.levels.{level}.mode": "eval" for level in ("lower", "middle", "upper")}, "the logarithm"),
        ("ruas", {}, ""),
    ],
)
def test_a_division_of_the_batch_is_exact_without_batch_norms_and_logarithms(
    name: str, changes: dict[str, Any], effect: str
) -> None:
    found = effect_of_division(nas.load_config(name, changes), "search")
    assert (found[: len(effect)], bool(found)) == (effect, bool(effect))


def test_a_division_keeps_the_number_of_samples() -> None:
    config = nas.load_config("demo", {"search.levels.lower.accumulate": 3})
    half, quarter = divided(config, "search", 12)
    assert (half["task.batch"], half["retrain.task.batch"], half["search.validation_batches"]) == (6, 12, 8)
    assert (half["search.levels.lower.accumulate"], quarter["search.levels.upper.accumulate"]) == (6, 4)
    stages = {f"retrain.stages.{name}.level.accumulate": 2 for name in ("backbone", "averaging", "joint")}
    assert list(divided(config, "retrain", 2)) == [{"retrain.task.batch": 1, **stages}]


def test_nothing_fits_into_a_byte() -> None:
    assert planned({}, 1).proposals == ()
