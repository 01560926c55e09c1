from __future__ import annotations

import pytest
import torch

from nas.errors import ConfigError, UnknownNameError
from nas.hypergradient import RESPONSES, Parameters, response


def test_the_level_does_not_respond() -> None:
    a = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    w = {"w": torch.tensor(2.0, dtype=torch.float64)}

    def unused(*_: Parameters) -> torch.Tensor:
        raise AssertionError("first order evaluates no lower loss")

    answer = response("first_order")(unused, w, unused)  # type: ignore[arg-type]
    assert not answer["w"].requires_grad
    upper = (a + answer["w"]).square() / 2
    assert torch.autograd.grad(upper, a)[0].item() == 2.5


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("first_order", {}, 0.0),
        ("implicit", {"damping": 0.0}, 3.0),
        ("unrolled", {}, 0.285),  # w' = 2 - 0.1 * 1.5, dF/da = 0.1 (w' + 1)
    ],
)
def test_point_03_sign_toy(name: str, arguments: dict[str, float], expected: float) -> None:
    # f = (w - a)^2 / 2, F = (w + 1)^2 / 2: w* = a, so dF/da = w + 1 = 3 at w = 2, whatever a is.
    a = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def lower(current: Parameters) -> torch.Tensor:
        return (current["w"] - a).square() / 2

    def step(current: Parameters, gradients: Parameters) -> Parameters:
        return {"w": current["w"] - 0.1 * gradients["w"]}

    answer = response(name, **arguments)(lower, {"w": torch.tensor(2.0, dtype=torch.float64)}, step)
    upper = (answer["w"] + 1).square() / 2 + 0 * a
    assert torch.autograd.grad(upper, a)[0].item() == pytest.approx(expected, abs=1e-12)


def test_every_method_is_in_the_sign_toy() -> None:
    assert set(RESPONSES) == {"first_order", "implicit", "unrolled"}


def test_unknown_methods_and_arguments_name_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown hypergradient 'implict' \(did you mean 'implicit'\?\)"):
        response("implict")
    with pytest.raises(UnknownNameError, match=r"argument of hypergradient 'unrolled' 'step' \(did you mean 'steps'"):
        response("unrolled", step=1)
    with pytest.raises(UnknownNameError, match="argument of hypergradient 'first_order' 'damping'"):
        response("first_order", damping=1)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("unrolled", {"steps": 0}, "takes at least 1 step, found 0"),
        ("implicit", {"damping": -0.1}, "takes a damping of at least 0, found -0.1"),
    ],
)
def test_arguments_out_of_range(name: str, arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        response(name, **arguments)


@pytest.mark.parametrize(("name", "arguments"), [("unrolled", {"steps": 1.5}), ("implicit", {"limit": 0.5})])
def test_counts_are_whole(name: str, arguments: dict[str, float]) -> None:
    with pytest.raises(TypeError, match="integer"):
        response(name, **arguments)
