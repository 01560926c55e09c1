from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nas.hypergradient.attach import asked, attach_pullback
from nas.hypergradient.response import Parameters


def test_a_pullback_gets_the_cotangents_and_leaves_of_the_others() -> None:
    a = torch.tensor([0.5, 2.0], requires_grad=True)
    others = {"fixed": torch.ones(3), "a": a, "computed": a.sin()}
    seen: list[list[float]] = []

    def pull(cotangents: list[Tensor], fixed: Parameters) -> list[Tensor]:
        seen.append([cotangent.sum().item() for cotangent in cotangents])
        assert list(fixed) == list(others)
        assert all(value.is_leaf for value in fixed.values())
        assert [value.shape for value in asked(fixed)] == [(2,), (2,)]
        assert torch.is_grad_enabled()
        return [torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0])]

    values = {"w": torch.tensor([1.0, 2.0]), "unseen": torch.tensor(3.0)}
    answer = attach_pullback(values, others, pull)
    assert all(torch.equal(answer[name], value) for name, value in values.items())
    (found,) = torch.autograd.grad((answer["w"] * 3).sum(), a)
    assert seen == [[6.0, 0.0]]
    torch.testing.assert_close(found, torch.tensor([1.0, 2.0]) + torch.tensor([10.0, 20.0]) * a.detach().cos())


def test_without_a_level_above_there_is_nothing_to_attach_to() -> None:
    values = {"w": torch.ones(2)}
    assert attach_pullback(values, {"a": torch.ones(1)}, lambda v, _: v) is values


def test_the_result_cannot_be_differentiated_twice() -> None:
    a = torch.tensor(1.0, requires_grad=True)
    answer = attach_pullback({"w": torch.tensor(1.0)}, {"a": a}, lambda v, _: v)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        torch.autograd.grad(answer["w"] ** 2 * a, a, create_graph=True)
