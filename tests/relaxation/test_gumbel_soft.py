"""The Gumbel-softmax relaxation."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare

from nas.relaxation.gumbel_soft import GumbelSoft
from nas.relaxation.sampling import Draw, draws

LOGITS = torch.tensor([0.3, -1.0, 1.2], dtype=torch.double)


def draw_of(step: int = 0, progress: float = 0.0, random: bool = True) -> Draw:
    ((_, _, draw),) = draws({"a": LOGITS}, {"a": "xyz"}, seed=3, step=step, progress=progress, random=random)
    return draw


def test_the_formula() -> None:
    for progress, temperature in ((0.0, 2.0), (0.25, 1.625), (1.0, 0.5)):
        draw = draw_of(7, progress)
        powers = ((LOGITS + torch.tensor(draw.gumbel(), dtype=torch.double)) / temperature).exp()
        assert GumbelSoft(2.0, 0.5).draw(LOGITS, draw).tolist() == pytest.approx((powers / powers.sum()).tolist())


def test_the_largest_weight_follows_the_softmax() -> None:
    """Chi-square over 10^5 draws; at any temperature the largest is that of the largest sum of logit and noise."""
    relaxation, counts = GumbelSoft(), [0] * 3
    for step in range(1000):  # the noise of a few draws, used whole, is what the relaxation sees
        counts[int(relaxation.draw(LOGITS, draw_of(step)).argmax())] += 1
    noise = torch.tensor([draw_of(step).gumbel() for step in range(100_000)], dtype=torch.double)
    every = torch.bincount((LOGITS + noise).argmax(1), minlength=3)
    for observed, total in ((counts, 1000), (every.tolist(), 100_000)):
        expected = (total * LOGITS.softmax(0)).tolist()
        assert chisquare(observed, expected).pvalue > 1e-3


def test_a_low_temperature_is_nearly_one_hot_and_eval_mode_has_no_noise() -> None:
    assert GumbelSoft(1.0, 1e-3).draw(LOGITS, draw_of(progress=1.0)).max() > 0.999
    assert torch.equal(GumbelSoft().draw(LOGITS, draw_of(random=False)), LOGITS.softmax(0))
