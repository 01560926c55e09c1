"""The sparsemax relaxation, against a solver of the projection and the closed form of its Jacobian."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear

from nas.relaxation.sparsemax import Sparsemax


def projected(logits: np.ndarray) -> np.ndarray:
    """The projection on the simplex by a bounded least-squares solver; a heavy row holds the sum at 1."""
    heavy = 1e4
    matrix = np.vstack([np.eye(len(logits)), heavy * np.ones(len(logits))])
    found: np.ndarray = lsq_linear(matrix, np.append(logits, heavy), (0, np.inf), method="bvls", tol=1e-15).x
    return found


def test_it_is_the_projection_on_the_simplex() -> None:
    generator = np.random.default_rng(0)
    zeros = 0
    for number in range(1000):
        logits = generator.normal(size=generator.integers(1, 8)) * (0.2, 1.0, 3.0)[number % 3]
        found = Sparsemax()(torch.from_numpy(logits)).numpy()
        assert found == pytest.approx(projected(logits), abs=1e-6)
        assert found.sum() == pytest.approx(1, abs=1e-12)
        zeros += (found == 0).sum()
    assert zeros > 500


def test_the_jacobian_has_a_closed_form() -> None:
    """diag(s) - s s^T / |S| with s the indicator of the support S (Martins and Astudillo, 2016, sec. 2.5)."""
    for seed, temperature in ((0, 1.0), (1, 0.5), (2, 4.0)):
        logits = torch.randn(6, dtype=torch.double, generator=torch.Generator().manual_seed(seed))
        support = (Sparsemax(temperature)(logits) > 0).double()
        expected = (support.diag() - torch.outer(support, support) / support.sum()) / temperature
        found = torch.autograd.functional.jacobian(Sparsemax(temperature), logits)
        assert torch.allclose(found, expected, atol=1e-12)
        assert support.sum() > 1
    assert Sparsemax(2.0)(torch.tensor([0.0, 3.0])).tolist() == [0.0, 1.0]
    assert Sparsemax(4.0)(torch.tensor([0.0, 3.0])).tolist() == [0.125, 0.875]
