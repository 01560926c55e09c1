"""Regularizers of the logits against closed forms; each pushes in the direction that its paper wants."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Dirichlet, kl_divergence
from torch.nn import functional as F

from nas.multilevel.logit_regularizers import dirichlet_kl, dirichlet_l2, zero_one
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace
from nas.supernet import Supernet

ONE, TWO = [0.4, -0.9, 0.0], [1.5, -0.1]


def space(choose: Chooser, /) -> nn.Module:
    return nn.Sequential(
        choose("one", dict.fromkeys("xyz", nn.Identity)), choose("two", dict.fromkeys("xy", nn.Identity))
    )


@pytest.fixture
def supernet() -> Supernet:
    made = Supernet(SearchSpace("s", space), relaxation="dirichlet").double()
    made.arch["one"].data, made.arch["two"].data = (torch.tensor(a, dtype=torch.double) for a in (ONE, TWO))
    return made


def gradient(value: Tensor, supernet: Supernet) -> list[float]:
    return torch.cat(torch.autograd.grad(value, supernet.logits())).tolist()


def test_zero_one(supernet: Supernet) -> None:
    shares = [1 / (1 + math.exp(-a)) for a in ONE + TWO]
    value = zero_one(supernet)
    assert value.item() == pytest.approx(-sum((s - 0.5) ** 2 for s in shares) / 5)
    for a, descent in zip(ONE + TWO, gradient(-value, supernet), strict=True):
        assert descent * a >= 0, "it drives weights away from 1/2"


def test_dirichlet_l2_is_weight_decay(supernet: Supernet) -> None:
    assert dirichlet_l2(supernet).item() == pytest.approx(sum(a * a for a in ONE + TWO) / 2)
    assert gradient(1e-3 * dirichlet_l2(supernet), supernet) == pytest.approx([1e-3 * a for a in ONE + TWO])


def test_dirichlet_kl(supernet: Supernet) -> None:
    expected = torch.zeros((), dtype=torch.double)
    for values in (ONE, TWO):
        c = F.elu(torch.tensor(values, dtype=torch.double)) + 1
        expected += kl_divergence(Dirichlet(c), Dirichlet(torch.ones_like(c)))
    value = dirichlet_kl(supernet)
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    with torch.no_grad():
        for logits, step in zip(supernet.logits(), torch.autograd.grad(value, supernet.logits()), strict=True):
            logits -= 0.01 * step
    assert dirichlet_kl(supernet) < value
    for logits in supernet.logits():
        logits.data.zero_()
    assert dirichlet_kl(supernet).item() == pytest.approx(0, abs=1e-12)
