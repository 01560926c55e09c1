"""The softmax relaxation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nas.declarations import SOFTMAX, declaration_of
from nas.registry import kind
from nas.relaxation.softmax import Softmax

logits = st.lists(st.floats(-50, 50), min_size=1, max_size=6)


@given(logits, st.floats(0.1, 10))
def test_the_formula(values: list[float], temperature: float) -> None:
    found = Softmax(temperature)(torch.tensor(values, dtype=torch.double))
    powers = [math.exp(value / temperature - max(values) / temperature) for value in values]
    expected = torch.tensor([power / sum(powers) for power in powers], dtype=torch.double)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-15)


def test_only_at_temperature_one_is_it_the_softmax_of_the_logits_that_some_parts_need() -> None:
    values = torch.tensor([0.0, math.log(3.0)], dtype=torch.double)
    assert Softmax()(values).tolist() == pytest.approx([0.25, 0.75])
    assert [SOFTMAX in declaration_of(Softmax(t)).gives for t in (1.0, 2.0, 0.5)] == [True, False, False]


@given(logits)
def test_mixing_weights_sum_to_one(values: list[float]) -> None:
    found = Softmax()(torch.tensor(values, dtype=torch.double))
    assert found.min() >= 0
    assert found.sum().item() == pytest.approx(1.0, rel=1e-12)


def test_a_low_temperature_sharpens() -> None:
    values = torch.tensor([0.0, 1.0], dtype=torch.double)
    assert Softmax(0.5)(values)[1] > Softmax(1.0)(values)[1] > Softmax(2.0)(values)[1] > 0.5


def test_far_logits_give_exact_one_hots() -> None:
    for dtype in (torch.float32, torch.float64):
        assert Softmax()(torch.tensor([0.0, 1e4, 0.0], dtype=dtype)).tolist() == [0.0, 1.0, 0.0]


def test_gradients() -> None:
    values = torch.tensor([0.3, -1.0, 2.0], dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(Softmax(0.7), values)


def test_every_relaxation_is_a_module_that_is_deterministic_in_eval_mode() -> None:
    values = torch.tensor([0.3, -1.0, 2.0])
    for name in kind("relaxation").names():
        module = kind("relaxation").create(name, "relaxation").eval()
        assert isinstance(module, nn.Module)
        assert torch.equal(module(values), module(values))
        assert module(values).shape == values.shape
