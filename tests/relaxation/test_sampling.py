"""The draws of one step, and what samples are read as."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.stats import kstest
from torch import nn

from nas.relaxation.binary_gates import BinaryGates
from nas.relaxation.gumbel import Gumbel
from nas.relaxation.gumbel_soft import GumbelSoft
from nas.relaxation.reinmax import ReinMax
from nas.relaxation.sampling import Draw, draws, learns, linear, one_hot, straight_through

LOGITS = torch.tensor([0.3, -1.0, 1.2], dtype=torch.double)
MOMENT: dict[str, Any] = {"seed": 3, "step": 7, "progress": 0.5, "random": True}


@pytest.mark.parametrize(
    "relaxation", [Gumbel(), GumbelSoft(), ReinMax(), BinaryGates()], ids=lambda each: type(each).__name__
)
def test_a_genotype_is_read_by_the_softmax(relaxation: nn.Module) -> None:
    powers = LOGITS.exp()
    assert relaxation(LOGITS).tolist() == pytest.approx((powers / powers.sum()).tolist(), rel=1e-12)


def test_temperatures_are_those_of_the_authors() -> None:
    """D-X-Y/AutoDL-Projects, GDAS-search-NASNet-space.sh; SNAS-Series, SNAS/README.md; ReinMax's default."""
    assert (Gumbel().temperature, Gumbel().final_temperature) == (10.0, 0.1)
    assert (GumbelSoft().temperature, GumbelSoft().final_temperature) == (1.0, 0.03)
    assert ReinMax().temperature == 1.0


def test_a_draw_belongs_to_the_first_pass_and_is_alone_unless_it_says_otherwise() -> None:
    ((_, _, draw),) = draws({"a": LOGITS}, {"a": "xyz"}, **MOMENT)
    alone = Draw(3, "a", "xyz", 7, 0.5, random=True)
    assert draw.turn == alone.turn == 0
    assert alone.together(lambda every: [each.label for each in every]) == "a"
    assert alone.logits == ()
    assert draw.logits == LOGITS.tolist()
    assert draw.gumbel() == alone.gumbel() != alone.gumbel("other")


def test_draws_of_a_pass_share_what_is_computed_once() -> None:
    calls: list[list[str]] = []

    def together(every: Any) -> list[float]:
        calls.append([each.label for each in every])
        return [sum(each.logits) for each in every]

    arch = {"a": LOGITS, "b": 2 * LOGITS[:2]}
    found = {label: draw.together(together) for label, _, draw in draws(arch, {"a": "xyz", "b": "xy"}, **MOMENT)}
    assert calls == [["a", "b"]]
    assert found == pytest.approx({"a": 0.5, "b": -1.4})


def test_numbers_are_uniform_in_the_open_interval() -> None:
    numbers = [u for step in range(1000) for u in Draw(3, "a", "xyz", step, 0.0, random=True).uniform()]
    assert kstest(numbers, "uniform").pvalue > 1e-3
    assert 0 < min(numbers) < max(numbers) < 1


def test_small_functions() -> None:
    assert [linear(2.0, 6.0, progress) for progress in (0.0, 0.25, 1.0)] == [2.0, 3.0, 6.0]
    assert one_hot(1, LOGITS).tolist() == [0.0, 1.0, 0.0]
    soft = LOGITS.clone().requires_grad_()
    assert straight_through(2, soft).tolist() == pytest.approx([0.0, 0.0, 1.0], abs=1e-12)
    (gradient,) = torch.autograd.grad(straight_through(2, soft) @ torch.tensor([1.0, 2.0, 3.0]).double(), soft)
    assert gradient.tolist() == [1.0, 2.0, 3.0]
    assert learns(soft)
    with torch.no_grad():
        assert not learns(soft)
    assert not learns(LOGITS)
