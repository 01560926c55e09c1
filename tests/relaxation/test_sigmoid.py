"""The sigmoid relaxation."""

from __future__ import annotations

import math

import pytest
import torch

from nas.relaxation.sigmoid import Sigmoid


def test_the_formula_and_its_gradient() -> None:
    values = [-3.0, 0.0, 1.5]
    logits = torch.tensor(values, dtype=torch.double, requires_grad=True)
    weights = [1 / (1 + math.exp(-a)) for a in values]
    assert Sigmoid()(logits).tolist() == pytest.approx(weights, rel=1e-12)
    (gradient,) = torch.autograd.grad(Sigmoid()(logits).sum(), logits)
    assert gradient.tolist() == pytest.approx([w * (1 - w) for w in weights], rel=1e-12)
