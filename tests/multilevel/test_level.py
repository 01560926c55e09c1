from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nas.errors import ConfigError, InvalidFileError
from nas.files import convert
from nas.multilevel.level import Level, assign, matches
from nas.registry import kind

NAMES = ["network.stem.weight", "network.stem.bias", "network.fuse.weight", "arch.alignment", "arch.cell-1"]


def level(**fields: Any) -> Level:
    return convert(
        {"parameters": ["*"], "loss": "l", "split": "s", "optimizer": {"name": "sgd", "lr": 1}, **fields}, Level, "x"
    )


def test_levels_minimize_the_same_by_loss_mode_and_regularizers() -> None:
    assert level().minimises_as(level(split="t", optimizer={"name": "adam", "lr": 2}, parameters=["a"]))
    for other in ({"loss": "m"}, {"mode": "eval"}, {"regularizers": [{"name": "entropy", "weight": 1}]}):
        assert not level().minimises_as(level(**other))


# --- when a level moves, and how fast ---


@given(total=st.integers(1, 200), percent=st.integers(0, 99), period=st.integers(1, 12))
def test_a_level_moves_once_in_every_period_after_the_warm_up(total: int, percent: int, period: int) -> None:
    tested = level(warmup=percent / 100, period=period)
    start = math.ceil(Fraction(percent, 100) * total)  # exact, where percent / 100 * total is not
    assert tested.start(total) == start
    assert [k for k in range(total) if tested.due(k, total)] == list(range(start + period - 1, total, period))


def test_a_warm_up_is_not_one_step_longer_by_rounding() -> None:
    assert 0.07 * 100 > 7
    assert level(warmup=0.07).start(100) == 7


def test_a_constant_rate_does_not_change() -> None:
    tested = level(optimizer={"name": "sgd", "lr": 0.3}, warmup=0.5)
    assert {tested.lr(k, 10) for k in range(10)} == {0.3}


def test_a_cosine_goes_from_the_rate_after_the_warm_up_to_its_end() -> None:
    tested = level(optimizer={"name": "sgd", "lr": 2}, schedule={"name": "cosine", "final_lr": 0.1}, warmup=0.2)
    rates = [tested.lr(k, 100) for k in range(101)]
    assert rates[:21] == [2.0] * 21
    assert rates[60] == pytest.approx((2 + 0.2) / 2)
    assert rates[40] == pytest.approx(0.2 + 1.8 * (1 + math.sqrt(0.5)) / 2)
    assert rates[100] == pytest.approx(0.2)
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_a_cosine_ends_at_zero_unless_told() -> None:
    assert level(schedule="cosine").lr(8, 8) == pytest.approx(0)


@pytest.mark.parametrize("name", ["constant", "cosine"])
def test_every_schedule_takes_a_warm_up_in_which_the_rate_rises_linearly(name: str) -> None:
    """From the end of the level's own warm-up on; the schedule covers the other steps as if it began there."""
    tested = level(optimizer={"name": "sgd", "lr": 2}, schedule={"name": name, "warmup": 0.25}, warmup=0.2)
    rates = [tested.lr(k, 100) for k in range(20, 100)]
    assert rates[:20] == pytest.approx([2 * (k + 1) / 20 for k in range(20)])
    after = level(optimizer={"name": "sgd", "lr": 2}, schedule=name)
    assert rates[20:] == pytest.approx([after.lr(k, 60) for k in range(60)])


# --- optimizers ---


@pytest.mark.parametrize(
    ("fields", "made", "expected"),
    [
        ({"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": True}, torch.optim.SGD, {}),
        ({"name": "adam", "lr": 0.1, "betas": [0.5, 0.99]}, torch.optim.Adam, {"weight_decay": 0.0}),
        ({"name": "adam", "lr": 0.1, "weight_decay": 0.1}, torch.optim.AdamW, {"weight_decay": 0.1}),
        ({"name": "adam", "lr": 0.1, "weight_decay": 0.1, "decoupled": False}, torch.optim.Adam, {"weight_decay": 0.1}),
        ({"name": "adamw", "lr": 0.1}, torch.optim.AdamW, {"weight_decay": 1e-2, "betas": (0.9, 0.999)}),
    ],
)
def test_optimizers_are_those_of_torch(
    fields: dict[str, Any], made: type[torch.optim.Optimizer], expected: dict[str, Any]
) -> None:
    built = kind("optimizer").create(level(optimizer=fields).optimizer, "optimizer", [nn.Parameter(torch.zeros(1))])
    assert type(built) is made
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items() if k not in ("name", "decoupled")}
    assert {k: built.param_groups[0][k] for k in {**given, **expected}} == {**given, **expected}
    if fields["name"] == "adam" and made is torch.optim.AdamW:
        return
    plain = kind("optimizer").create({"name": fields["name"], "lr": 0.1}, "optimizer", [nn.Parameter(torch.zeros(1))])
    assert plain.defaults == made([nn.Parameter(torch.zeros(1))], lr=0.1).defaults  # type: ignore[call-arg]


# --- bad values ---


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"period": 0}, "^x: period.* 1"),
        ({"inner_steps": -1}, "^x: inner_steps.* 1"),
        ({"warmup": 1}, "^x: warmup.* 1"),
        ({"warmup": -0.1}, "^x: warmup.* 0"),
        ({"clip": 0}, "^x: clip.* 0"),
        ({"schedule": {"name": "cosine", "final_lr": 2}}, "^x: schedule.final_lr must be at most 1, got 2"),
        ({"schedule": {"name": "constant", "warmup": 1}}, "^x: schedule.warmup must be below 1, got 1"),
        ({"schedule": "cosin"}, r"^x: schedule: .*'cosin' \(did you mean 'cosine'\?\)"),
        ({"mode": "test"}, "^x: mode: .*'test'"),
        ({"perod": 2}, r"'perod' \(did you mean 'period'\?\)"),
        ({"regularizers": [{"name": "entropy", "weight": "w"}]}, r"^x: regularizers\[0\].weight must be .*, got 'w'"),
        ({"hypergradient": {"lower": {"name": "unrolled", "steps": 0}}}, "^x: hypergradient.lower.steps must .*got 0"),
        ({"hypergradient": {"lower": {}}}, "^x: hypergradient.lower must .*'name', got {}"),
        ({"optimizer": {"lr": 1}}, "^x: optimizer must .* 'name', got {'lr': 1}"),
        ({"optimizer": {"name": "sgd"}}, "^x: optimizer: .*'lr'"),
        ({"optimizer": {"name": "sdg", "lr": 1}}, r"^x: optimizer: .*'sdg' \(did you mean 'sgd'\?\)"),
        ({"optimizer": {"name": "sgd", "lr": -1}}, "^x: optimizer.lr must be at least 0, got -1"),
        (
            {"optimizer": {"name": "sgd", "lr": 1, "betas": [0, 0]}},
            "^x: optimizer.betas .*'sgd'; it takes lr,",
        ),
        ({"optimizer": {"name": "sgd", "lr": 1, "momentum": 1}}, "^x: optimizer.momentum must be below 1, got 1"),
        (
            {"optimizer": {"name": "adam", "lr": 1, "betas": [0.9, 1]}},
            r"^x: optimizer.betas\[1\] must be below 1, got",
        ),
        ({"optimizer": {"name": "adam", "lr": 1, "betas": [0.9]}}, r"^x: optimizer.betas must be .* 2, got \[0.9\]"),
    ],
)
def test_bad_values_name_the_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidFileError, match=message):
        level(**fields)


def test_an_optimizer_refuses_what_it_cannot_combine() -> None:
    fields = level(optimizer={"name": "sgd", "lr": 1, "nesterov": True}).optimizer
    with pytest.raises(ConfigError, match=r"^levels\.a\.optimizer: .*momentum"):
        kind("optimizer").create(fields, "levels.a.optimizer", [nn.Parameter(torch.zeros(1))])


def test_levels_are_plain_data() -> None:
    tested = level(optimizer={"name": "adam", "lr": 0.1}, hypergradient={"middle": {"name": "implicit", "damping": 0}})
    assert msgspec.convert(msgspec.to_builtins(tested), Level) == tested


# --- who owns what ---


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["arch.*"], [3, 4]),
        (["network.*", "!network.fuse.*"], [0, 1]),
        (["!*.bias", "network.*"], [0, 2]),
        (["*"], [0, 1, 2, 3, 4]),
        (["*.weight", "arch.cell-?"], [0, 2, 4]),
        (["!arch.*"], []),
        (["Arch.*"], []),
        ([], []),
    ],
)
def test_patterns(patterns: list[str], expected: list[int]) -> None:
    assert [i for i, name in enumerate(NAMES) if matches(name, patterns)] == expected


def test_parameters_are_assigned_in_the_order_of_the_model() -> None:
    levels = {
        "lower": level(parameters=["network.*", "!network.fuse.*"]),
        "middle": level(parameters=["network.fuse.*"], hypergradient={"lower": {"name": "unrolled"}}),
        "upper": level(parameters=["arch.*"], hypergradient={"middle": {"name": "implicit"}, "lower": "first_order"}),
    }
    assert assign(levels, NAMES) == {"lower": NAMES[:2], "middle": NAMES[2:3], "upper": NAMES[3:]}


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ({}, "there are no levels"),
        (
            {"lower": level(parameters=["netwrok.*"])},
            r"level 'lower' owns no parameters: none matches netwrok.\*;"
            r" there are arch.alignment, arch.cell-1, network.fuse.\*, network.stem.\*",
        ),
        ({"lower": level(parameters=[])}, "level 'lower' owns no parameters: none matches an empty list"),
        (
            {"lower": level(), "upper": level(parameters=["arch.*"])},
            "levels 'lower' and 'upper' both own the parameter 'arch.alignment'",
        ),
        (
            {"lower": level(hypergradient={"lower": "first_order"})},
            "level 'lower': 'hypergradient' must .*, got 'lower'$",
        ),
        (
            {
                "a": level(parameters=["network.*"], hypergradient={"b": "first_order"}),
                "b": level(parameters=["arch.*"]),
            },
            "level 'a': 'hypergradient' must .*, got 'b'; the order is a < b$",
        ),
        (
            {
                "a": level(parameters=["network.*"], hypergradient={"b": "first_order"}),
                "b": level(parameters=["arch.*"], hypergradient={"a": "first_order"}),
            },
            "level 'a': .*, got 'b'; the order is a < b, and each would respond to the other$",
        ),
        (
            {
                "middle": level(parameters=["network.*"]),
                "upper": level(parameters=["arch.*"], hypergradient={"midle": "first_order"}),
            },
            r"below it \(middle\), got 'midle' \(did you mean 'middle'\?\)$",
        ),
    ],
)
def test_levels_that_cannot_work(levels: dict[str, Level], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        assign(levels, NAMES)
