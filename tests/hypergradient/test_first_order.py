"""The toy that shows a wrong sign, for every method; methods by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nas.hypergradient.response import Loss, Parameters
from quadratic import METHODS, descent, response

# At w = 2, a = 0.5 for f = (w - a)^2 / 2 and F = (w + 1)^2 / 2. As w* = a, the exact gradient is w + 1 = 3; a step of
# rate 0.1 goes to w' = 1.85, with the gradient 0.1 (w' + 1), and two go to 1.715.
SIGN_TOY: list[tuple[str, dict[str, Any], float]] = [
    ("first_order", {}, 0.0),
    ("implicit", {"damping": 0.0}, 3.0),
    ("implicit", {"damping": 0.5}, 2.0),
    ("unrolled", {}, 0.285),
    ("unrolled", {"steps": 2}, 0.19 * 2.715),
    ("truncated", {"steps": 2, "last": 1}, 0.1 * 2.715),
    ("finite_difference", {}, 0.285),
    ("gauss_newton", {}, 3.0),
    ("neumann", {"terms": 1, "step_size": 0.1}, 0.3),
    ("neumann", {"terms": 3, "step_size": 0.1}, 0.1 * (1 + 0.9 + 0.81) * 3),
    ("conjugate_gradient", {"damping": 0.0}, 3.0),
    ("conjugate_gradient", {"damping": 0.5}, 2.0),
    ("closed", {}, 1.5),  # at w* itself
    ("closed", {"ridge": 1.0, "center": -1.0}, 0.5 * 0.75),  # w* = (a - 1) / 2
]


def toy(name: str, **arguments: Any) -> Tensor:
    a = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    w = {"w": torch.tensor(2.0, dtype=torch.float64)}
    loss = Loss([lambda own, others: (own["w"] - others["a"]).square() / 2])
    answer = response(name, **arguments)(loss, w, {"a": a}, descent(0.1))
    return torch.autograd.grad((answer["w"] + 1).square() / 2 + 0 * a, a)[0]


@pytest.mark.parametrize(("name", "arguments", "expected"), SIGN_TOY)
def test_point_03_sign_toy(name: str, arguments: dict[str, Any], expected: float) -> None:
    assert toy(name, **arguments).item() == pytest.approx(expected, abs=1e-12)


def test_every_method_is_in_the_sign_toy() -> None:
    assert {name for name, _, _ in SIGN_TOY} == set(METHODS)


def test_first_order_evaluates_no_lower_loss() -> None:
    a = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    w = {"w": torch.tensor(2.0, dtype=torch.float64)}

    def unused(*_: Parameters) -> Tensor:
        raise AssertionError

    answer = response("first_order")(Loss([unused]), w, {"a": a}, unused)  # type: ignore[arg-type]
    assert not answer["w"].requires_grad
