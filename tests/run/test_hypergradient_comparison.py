"""The comparison of methods, on the toy space and on levels whose gradients are known."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

import toy
from nas.errors import ConfigError, UnknownNameError
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.run.hypergradient_comparison import Comparison, prepare


class Plane(nn.Module):
    """Two weights that follow two arch parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.a = nn.Parameter(torch.tensor([0.5, -0.5], dtype=torch.float64))

    def forward(self) -> Tensor:
        return self.w


def plane(rate: float = 0.1) -> Multilevel:
    levels = {
        "lower": {"parameters": ["w"], "loss": "f", "optimizer": {"name": "sgd", "lr": rate}},
        "upper": {"parameters": ["a"], "loss": "F", "optimizer": {"name": "sgd", "lr": 1}},
    }
    typed = {name: msgspec.convert({"split": "s", **level}, Level) for name, level in levels.items()}
    curve = torch.tensor([1.0, 4.0], dtype=torch.float64)
    losses: dict[str, Any] = {
        "f": lambda net, _: (curve * (net() - net.a).square()).sum() / 2,
        "F": lambda net, _: net().sum() + 0.1 * net.a[0],
    }
    return Multilevel(Plane(), typed, losses, lambda split, index: None, 10)


def test_numbers_are_those_of_the_vectors() -> None:
    # dw'/da = 0.1 (1, 4), so that the response adds (0.1, 0.4) to the first-order gradient (0.1, 0).
    check = Comparison(plane())
    assert (check.level, check.below) == ("upper", "lower")
    first = check.accuracy({"name": "first_order"})
    assert first.cosine == pytest.approx(0.2 / math.hypot(0.2, 0.4))
    assert first.error == pytest.approx(math.hypot(0.1, 0.4) / math.hypot(0.2, 0.4))
    assert math.isnan(first.response_cosine)
    assert first.response_error == pytest.approx(1)
    implicit = check.accuracy({"name": "implicit", "damping": 0})  # adds (1, 1)
    assert implicit.response_cosine == pytest.approx(0.5 / (math.sqrt(2) * math.hypot(0.1, 0.4)))
    assert implicit.response_error == pytest.approx(math.hypot(0.9, 0.6) / math.hypot(0.1, 0.4))
    assert implicit.error == pytest.approx(math.hypot(0.9, 0.6) / math.hypot(0.2, 0.4))
    same = check.accuracy({"name": "finite_difference"})
    assert (same.cosine, same.error, same.response_error) == pytest.approx((1, 0, 0), abs=1e-9)


def test_the_reference_takes_the_steps_asked_for() -> None:
    check = Comparison(plane(), steps=200)
    assert check.accuracy({"name": "unrolled"}).response_error > 0.5
    assert check.accuracy({"name": "implicit", "damping": 0}).response_error == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("method", "forwards"),
    [
        ("first_order", 1),
        ("unrolled", 2),
        ("truncated", 6),
        ("finite_difference", 4),
        ("gauss_newton", 2),
        ("neumann", 2),
        ("conjugate_gradient", 2),
    ],
)
def test_forward_passes_are_counted(method: str, forwards: int) -> None:
    assert Comparison(plane()).taken({"name": method}).forwards == forwards


def test_the_levels_of_a_configuration_after_some_steps() -> None:
    config = toy.config()
    fresh, later = prepare(config), prepare(config, after=3)
    assert not torch.equal(fresh.model.network.stem.weight, later.model.network.stem.weight)  # type: ignore[union-attr, arg-type]
    before = {name: value.clone() for name, value in later.model.state_dict().items()}
    random = torch.get_rng_state()
    check = Comparison(later, k=3)
    found = check.accuracy({"name": "finite_difference", "radius": 1e-2})
    assert found.error < 1e-2
    flops = [check.taken({"name": name}).footprint.flops for name in ("first_order", "finite_difference", "unrolled")]
    assert flops == sorted(set(flops))
    assert all(torch.equal(value, before[name]) for name, value in later.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_double_precision_leaves_no_rounding() -> None:
    check = Comparison(prepare(toy.config(), double=True))
    errors = [check.accuracy({"name": "finite_difference", "radius": r}).response_error for r in (1e-3, 1e-5)]
    assert errors[1] < 1e-6
    assert errors[1] < errors[0]


def test_a_relaxation_without_responses_is_refused() -> None:
    first_order = "search.levels.upper.hypergradient={}"
    levels = prepare(toy.config("search.relaxation=binary_gates", first_order))
    with pytest.raises(ConfigError, match=r"response of 'lower' needs .*, got .*'binary_gates'"):
        Comparison(levels)


def test_the_level_below_is_chosen() -> None:
    levels = prepare(toy.config("search.levels.upper.hypergradient={}"))
    check = Comparison(levels, below="middle")
    assert check.below == "middle"
    assert check.accuracy({"name": "finite_difference"}).error < 1e-2
    with pytest.raises(UnknownNameError, match=r"unknown level below 'upper' 'midle' \(did you mean 'middle'"):
        Comparison(levels, below="midle")
    with pytest.raises(UnknownNameError, match=r"unknown level 'uper' \(did you mean 'upper'"):
        Comparison(levels, "uper")
    with pytest.raises(UnknownNameError, match="unknown level below 'middle' 'upper'"):
        Comparison(levels, "middle", "upper")
    with pytest.raises(ConfigError, match="level 'lower' has no level below it"):
        Comparison(levels, "lower")


def test_other_levels_respond_as_they_are_configured() -> None:
    def gradient(*overrides: str) -> float:
        levels = prepare(toy.config(*overrides))
        return Comparison(levels).accuracy({"name": "first_order"}).error

    assert gradient() != gradient("search.levels.upper.hypergradient={}")
