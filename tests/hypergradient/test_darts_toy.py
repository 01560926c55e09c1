"""The toy of Fig. 2 of the DARTS paper, searched by the real levels.

    lower  f(w, a) = w^2 - 2 a w + a^2,   upper  F(w, a) = a w - 2 a + 1,   from (a, w) = (2, -2)

As w* = a, the solution is a = w = 1. First order ends where `w - 2 = 0`. One step of rate `xi` from `w = a` stays there
with dw'/da = 2 xi, and so ends where `a - 2 + 2 xi a = 0`: in the solution for `xi` 1/2, near it for others.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
        self.w = nn.Parameter(torch.tensor(-2.0, dtype=torch.float64))


def lower(toy: Any, batch: None) -> Tensor:
    loss: Tensor = toy.w**2 - 2 * toy.a * toy.w + toy.a**2
    return loss


def upper(toy: Any, batch: None) -> Tensor:
    loss: Tensor = toy.a * toy.w - 2 * toy.a + 1
    return loss


def searched(method: dict[str, Any], rate: float) -> tuple[float, float]:
    levels = {
        "lower": {"parameters": ["w"], "optimizer": {"name": "sgd", "lr": rate}},
        "upper": {
            "parameters": ["a"],
            "optimizer": {"name": "sgd", "lr": 0.1},
            "hypergradient": {"lower": method},
            "period": 5,
        },
    }
    typed = {name: msgspec.convert({"loss": name, "split": "s", **level}, Level) for name, level in levels.items()}
    toy = Toy()
    engine = Multilevel(toy, typed, {"lower": lower, "upper": upper}, lambda split, index: None, 800)
    for k in range(engine.steps):
        engine.step(k)
    return toy.a.item(), toy.w.item()


@pytest.mark.parametrize("name", ["unrolled", "finite_difference", "truncated"])
@pytest.mark.parametrize("xi", [0.2, 0.5, 0.7])
def test_one_step_ends_where_the_closed_form_says(name: str, xi: float) -> None:
    method = {"name": name, "steps": 1} if name == "truncated" else {"name": name}
    assert searched(method, xi) == pytest.approx((2 / (1 + 2 * xi),) * 2, abs=1e-6)


@pytest.mark.parametrize(
    "method",
    [
        {"name": "implicit", "damping": 0},
        {"name": "conjugate_gradient", "damping": 0},
        {"name": "neumann", "terms": 20, "step_size": 0.3},
        {"name": "unrolled", "steps": 20},
    ],
)
def test_implicit_and_long_responses_end_in_the_solution(method: dict[str, Any]) -> None:
    assert searched(method, 0.3) == pytest.approx((1, 1), abs=1e-6)


def test_first_order_ends_elsewhere() -> None:
    assert searched({"name": "first_order"}, 0.2) == pytest.approx((2, 2), abs=1e-6)
