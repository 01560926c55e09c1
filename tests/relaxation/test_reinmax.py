"""The ReinMax relaxation, by enumeration of its samples."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from nas.relaxation.reinmax import ReinMax
from nas.relaxation.sampling import Draw, draws, straight_through
from nas.space.mixed import Sampled

LOGITS = torch.tensor([0.3, -1.0, 1.2, 0.1], dtype=torch.double)


class Fixed(Draw):
    """A draw that takes the candidate `step`."""

    def ranked(self, noise: object) -> list[int]:
        return [self.step]


def quadratic(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(4, 4, dtype=torch.double, generator=generator)
    return matrix + matrix.T, torch.randn(4, dtype=torch.double, generator=generator)


def gradients(weights_of: object, seed: int) -> tuple[Tensor, Tensor]:
    """The expected gradient of a quadratic loss over all samples, and the gradient of the expected loss."""
    matrix, vector = quadratic(seed)
    logits = LOGITS.clone().requires_grad_()
    p, expected = LOGITS.softmax(0), torch.zeros(4, dtype=torch.double)
    for i in range(4):
        w = weights_of(logits, i)  # type: ignore[operator]
        assert w.tolist() == [float(j == i) for j in range(4)]
        loss = w @ matrix @ w / 2 + vector @ w
        expected += p[i] * torch.autograd.grad(loss, logits)[0]
    exact = logits.softmax(0) @ (matrix.diag() / 2 + vector)
    return expected, torch.autograd.grad(exact, logits)[0]


@pytest.mark.parametrize("seed", range(5))
def test_the_expected_gradient_of_a_quadratic_loss_is_exact(seed: int) -> None:
    relaxation = ReinMax()

    def drawn(logits: Tensor, i: int) -> Tensor:
        found = relaxation.draw(logits, Fixed(0, "a", "wxyz", i, 0.0, random=True))
        assert isinstance(found, Tensor)
        return found

    expected, exact = gradients(drawn, seed)
    assert (expected - exact).abs().max() < 1e-14
    naive, _ = gradients(lambda logits, i: straight_through(i, logits.softmax(0)), seed)
    assert (naive - exact).abs().max() > 0.05


def test_the_gradient_at_a_temperature_is_that_of_the_formula() -> None:
    """As the authors' backward pass has it (microsoft/ReinMax, reinmax.py), by its Jacobian on a vector."""
    logits, vector = LOGITS.clone().requires_grad_(), torch.tensor([0.5, -2.0, 1.0, 3.0], dtype=torch.double)
    draw = Fixed(0, "a", "wxyz", 1, 0.0, random=True)
    (found,) = torch.autograd.grad(ReinMax(2.5).draw(logits, draw), logits, vector)  # type: ignore[arg-type]
    q, p = ((LOGITS / 2.5).softmax(0) + torch.eye(4)[1]) / 2, LOGITS.softmax(0)
    expected = 2 * (q * vector - q * (q @ vector)) - (p * vector - p * (p @ vector)) / 2
    assert torch.allclose(found, expected, atol=1e-14)


def test_samples_follow_the_softmax_and_other_steps_compute_one_candidate() -> None:
    found = []
    for step in range(2000):
        ((_, logits, draw),) = draws({"a": LOGITS}, {"a": "wxyz"}, seed=1, step=step, progress=0.0, random=True)
        weights = ReinMax(2.0).draw(logits, draw)
        assert isinstance(weights, Sampled)
        learned = ReinMax(2.0).draw(logits.clone().requires_grad_(), draw)
        assert torch.equal(weights.weights, learned)  # type: ignore[arg-type]
        found.append(weights.choice)
    for i, p in enumerate(LOGITS.softmax(0).tolist()):
        assert Counter(found)[i] / 2000 == pytest.approx(p, abs=4 * (p * (1 - p) / 2000) ** 0.5)
