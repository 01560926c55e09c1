"""A three-level problem whose levels all have closed forms, solved by the real `Multilevel`.

    lower   w_D = a p + d, w_C = a q + e               (the dominant and the companion branch)
    middle  min_l |l w_D + (1 - l) w_C - T|^2 / 2 + mu (l - 1/2)^2 / 2
    upper   min_a |l w_D + (1 - l) w_C - V|^2 / 2

The gradient of the upper loss is 2.6 times smaller than the one that ignores the response of the middle level.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


P, D = vector(1, -0.5, 0.25), vector(0.2, 0.1, -0.3)
Q, E = vector(-0.4, 0.8, 0.6), vector(0.5, -0.2, 0.1)
T, V, MU = vector(0.6, 0.3, 0.4), vector(0.5, 0.2, 0.7), 0.1

A, AVERAGE, UPPER = 0.3, -0.0201311171, 0.1039864252
FIRST_ORDER, TOTAL, RESPONSE = -0.3270619267, -0.1248888113, 0.9789844028


class Toy(nn.Module):
    """With `direct` the branches see `a` themselves and the weights are corrections, at their optimum zero; else the
    weights are the branches, and know of `a` only through their own optimisation."""

    def __init__(self, direct: bool) -> None:
        super().__init__()
        self.direct = direct
        self.a = nn.Parameter(torch.tensor(A, dtype=torch.float64))
        self.average = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        self.dominant = nn.Parameter(torch.ones(3, dtype=torch.float64))
        self.companion = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def branches(self) -> tuple[Tensor, Tensor]:
        if self.direct:
            return self.a * P + D + self.dominant, self.a * Q + E + self.companion
        return self.dominant, self.companion

    def forward(self) -> Tensor:
        dominant, companion = self.branches()
        return self.average * dominant + (1 - self.average) * companion


def lower(toy: Any, batch: None) -> Tensor:
    dominant, companion = toy.branches()
    loss: Tensor = (dominant - toy.a * P - D).square().sum() / 2 + (companion - toy.a * Q - E).square().sum() / 2
    return loss


def middle(toy: Any, batch: None) -> Tensor:
    loss: Tensor = (toy() - T).square().sum() / 2 + MU * (toy.average - 0.5).square() / 2
    return loss


def upper(toy: Any, batch: None) -> Tensor:
    loss: Tensor = (toy() - V).square().sum() / 2
    return loss


LOSSES: dict[str, Callable[..., Tensor]] = {"lower": lower, "middle": middle, "upper": upper}
IMPLICIT = {"name": "implicit", "damping": 0}
CLOSED = {"name": "closed"}


def engine(
    toy: Toy,
    hypergradient: dict[str, Any],
    *,
    steps: int = 1,
    rate: float = 0.0,
    losses: dict[str, Callable[..., Tensor]] = LOSSES,
    **middle: Any,
) -> Multilevel:
    levels = {
        "lower": {"parameters": ["dominant", "companion"], "optimizer": {"name": "sgd", "lr": 1}},
        "middle": {"parameters": ["average"], "optimizer": {"name": "sgd", "lr": 1}, "inner_steps": 90, **middle},
        "upper": {"parameters": ["a"], "optimizer": {"name": "sgd", "lr": rate}, "hypergradient": hypergradient},
    }
    typed = {name: msgspec.convert({"loss": name, "split": "train", **level}, Level) for name, level in levels.items()}
    return Multilevel(toy, typed, losses, lambda split, index: None, steps)


def solved(hypergradient: dict[str, Any], *, direct: bool = True) -> tuple[float, float]:
    """The upper loss and its gradient, once the engine itself has solved the levels below."""
    toy = Toy(direct)
    levels = engine(toy, hypergradient)
    levels.step(0)
    assert toy.average.item() == pytest.approx(AVERAGE, abs=1e-9)
    loss, gradients = levels.gradient("upper", 0)
    return loss.item(), gradients["a"].item()


@pytest.mark.parametrize(
    ("hypergradient", "direct"),
    [
        ({"middle": IMPLICIT}, True),
        ({"lower": IMPLICIT, "middle": IMPLICIT}, True),
        ({"lower": IMPLICIT, "middle": IMPLICIT}, False),
        ({"middle": IMPLICIT, "lower": IMPLICIT}, False),  # levels respond from the lowest up, whatever the order here
        ({"lower": {"name": "unrolled"}, "middle": IMPLICIT}, False),  # one step of rate 1 solves the lower level
    ],
)
def test_point_02_implicit_responses_give_the_total_derivative(hypergradient: dict[str, Any], direct: bool) -> None:
    loss, gradient = solved(hypergradient, direct=direct)
    assert loss == pytest.approx(UPPER, abs=1e-9)
    assert gradient == pytest.approx(TOTAL, abs=1e-9)
    h = 1e-5
    assert gradient == pytest.approx((closed_form(A + h) - closed_form(A - h)) / (2 * h), abs=1e-9)


def closed_form(a: float) -> float:
    dominant, companion = a * P + D, a * Q + E
    difference = dominant - companion
    average = (difference @ (T - companion) + MU / 2) / (difference @ difference + MU)
    return ((average * dominant + (1 - average) * companion - V).square().sum() / 2).item()


@pytest.mark.parametrize(
    ("hypergradient", "direct"),
    [
        ({}, True),
        ({"middle": {"name": "first_order"}}, True),
        ({"lower": IMPLICIT}, False),  # two levels, however exact, do not make three
        ({"lower": IMPLICIT, "middle": {"name": "first_order"}}, False),
    ],
)
def test_point_02_without_the_middle_response_the_gradient_is_too_large(
    hypergradient: dict[str, Any], direct: bool
) -> None:
    _, gradient = solved(hypergradient, direct=direct)
    assert gradient == pytest.approx(FIRST_ORDER, abs=1e-9)
    assert gradient / TOTAL == pytest.approx(2.6, abs=0.05)


CG = {"name": "conjugate_gradient", "damping": 0, "iterations": 6}
NEUMANN = {"name": "neumann", "terms": 1, "step_size": 1.0}  # the Hessian of the lower level is the identity


@pytest.mark.parametrize("middle", [IMPLICIT, CG, CLOSED], ids=lambda method: str(method["name"]))
@pytest.mark.parametrize(
    "lower", [IMPLICIT, CG, NEUMANN, {"name": "truncated", "steps": 2}], ids=lambda method: str(method["name"])
)
def test_point_02_methods_nest(lower: dict[str, Any], middle: dict[str, Any]) -> None:
    loss, gradient = solved({"lower": lower, "middle": middle}, direct=False)
    assert loss == pytest.approx(UPPER, abs=1e-9)
    assert gradient == pytest.approx(TOTAL, abs=1e-8)


@pytest.mark.parametrize(
    ("middle", "method"),
    [(middle, {}), (lambda toy, batch: (toy() - T).square().sum() / 2, {"ridge": MU, "center": 0.5})],
    ids=["ridge in the loss", "ridge of the response"],
)
@pytest.mark.parametrize(
    ("lower", "direct"), [({}, True), ({"lower": IMPLICIT}, False), ({"lower": CLOSED}, False)], ids=str
)
def test_point_02_closed_answers_are_exact_wherever_the_middle_level_stands(
    lower: dict[str, Any], direct: bool, middle: Callable[..., Tensor], method: dict[str, Any]
) -> None:
    toy = Toy(direct)
    levels = engine(toy, {**lower, "middle": {**CLOSED, **method}}, losses={**LOSSES, "middle": middle})
    levels.step(0)  # solves the lower level
    for start in (-3.0, 0.5, AVERAGE):
        toy.average.data.fill_(start)
        loss, gradients = levels.gradient("upper", 0)
        assert loss.item() == pytest.approx(UPPER, abs=1e-9)
        assert gradients["a"].item() == pytest.approx(TOTAL, abs=1e-8)
        assert toy.average.item() == start


@pytest.mark.parametrize("direct", [True, False])
def test_point_02_finite_differences(direct: bool) -> None:
    lower = {} if direct else {"lower": {"name": "finite_difference"}}
    difference, exact = (
        solved({**lower, "middle": {"name": name}}, direct=direct)[1] for name in ("finite_difference", "unrolled")
    )
    assert difference == pytest.approx(exact, abs=1e-4)
    both = solved({"lower": {"name": "finite_difference"}, "middle": IMPLICIT}, direct=False)[1]
    assert both == pytest.approx(TOTAL, abs=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 8, 30])
def test_point_02_unrolled_responses_converge_geometrically(steps: int) -> None:
    _, gradient = solved({"middle": {"name": "unrolled", "steps": steps}})
    difference = A * (P - Q) + D - E
    left = (1 - (difference @ difference).item() - MU) ** steps  # what the steps leave of a distance to the optimum
    assert gradient == pytest.approx(TOTAL + left * (FIRST_ORDER - TOTAL), abs=1e-8)


def test_point_02_the_middle_level_responds_at_the_stated_rate() -> None:
    toy = Toy(direct=True)
    engine(toy, {}).step(0)
    dominant, companion = toy.branches()
    partial = ((toy() - V) @ (dominant - companion)).item()
    assert (TOTAL - FIRST_ORDER) / partial == pytest.approx(RESPONSE, abs=1e-7)


def test_a_search_ends_in_the_minimum_only_with_all_three_levels() -> None:
    found = {}
    for name, hypergradient in {"three": {"middle": IMPLICIT}, "two": {}}.items():
        toy = Toy(direct=True)
        levels = engine(toy, hypergradient, steps=60, rate=1.0, inner_steps=4, optimizer={"name": "sgd", "lr": 0.2})
        for k in range(levels.steps):
            levels.step(k)
        found[name] = toy.a.item(), toy.average.item(), upper(toy, None).item()
    assert found["three"] == pytest.approx((1.400406795, 0.4311349441, 0.0245294373), abs=1e-6)
    assert found["two"][2] > 0.0245294373 + 1e-4
