"""A mixture of a skip connection and a gain that fits y = a x: first-order gradients choose the skip connection.

    loss r^2 of r = s + (1 - s) w - a, with s = sigmoid(t) for the difference t of the two logits, from t = w = 0

By first-order gradients dt/dw = 2 k (1 - w) s, where k is the rate of the logits over that of w. So along the search
t - exp(-t) + 1 = 2 k (w - w^2 / 2), and t is positive until w = 2. The implicit hypergradient of s is 2 r^2 / (1 - s).
It is never negative, so t falls.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nas
from nas import Chooser

SLOPE = 1.2


class Gain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.w * x


def space(choose: Chooser, /) -> nn.Module:
    return choose("edge", {"skip": nn.Identity, "gain": Gain})


def squared_error(net: nn.Module, x: Tensor) -> Tensor:
    return (net(x) - SLOPE * x).square().mean()


def searched(method: dict[str, Any], steps: int, rate: float, ratio: float) -> list[tuple[float, float]]:
    """The course of (t, w), by simultaneous gradient steps."""
    net = nas.Supernet(nas.search_space("skip-or-gain-toy")(space)).double()
    (logits,), (w,) = net.logits(), net.weights()
    levels = nas.Levels(
        net,
        steps=steps,
        lower=nas.level(torch.optim.SGD([w], rate), loss=squared_error),
        upper=nas.level(torch.optim.SGD([logits], ratio * rate), loss=squared_error, hypergradient={"lower": method}),
    )
    x, course = torch.ones(1, 1, dtype=torch.float64), []
    for _ in range(steps):
        levels.step(lower=x, upper=x)
        course.append(((logits[0] - logits[1]).item(), w.item()))
    return course


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_first_order_gradients_strengthen_the_skip_connection_along_a_curve(ratio: float) -> None:
    for t, w in searched({"name": "first_order"}, 150, 0.01, ratio):
        assert t > 0
        assert t - math.exp(-t) + 1 == pytest.approx(2 * ratio * (w - w**2 / 2), abs=0.03 * ratio)


def test_an_implicit_hypergradient_weakens_it() -> None:
    rate, ratio, t, w = 0.02, 1.0, 0.0, 0.0
    for found in searched({"name": "implicit", "damping": 0.0}, 50, rate, ratio):
        w -= rate * 2 * (skip(t) + (1 - skip(t)) * w - SLOPE) * (1 - skip(t))
        r, s = skip(t) + (1 - skip(t)) * w - SLOPE, skip(t)
        t -= ratio * rate * 2 * (2 * r**2 / (1 - s)) * s * (1 - s)
        assert found == (pytest.approx(t), pytest.approx(w))
    assert t < -0.1


def skip(t: float) -> float:
    return 1 / (1 + math.exp(-t))
