"""The Dirichlet relaxation, against moments, another implementation and finite differences."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import beta, gamma, kstest
from torch import Tensor
from torch.nn import functional as F

from nas.relaxation.dirichlet import Dirichlet, log_concentration, log_gamma
from nas.relaxation.sampling import Draw, draws
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace
from nas.supernet import Supernet

LOGITS = torch.tensor([0.6, -1.5, 0.0, 2.0], dtype=torch.double)


def draw_of(logits: Tensor, step: int = 0, random: bool = True) -> Draw:
    ((_, _, draw),) = draws({"a": logits}, {"a": "wxyz"}, seed=3, step=step, progress=0.0, random=random)
    return draw


def test_the_concentration_is_that_of_the_paper_and_never_zero() -> None:
    logits = torch.linspace(-5, 5, 21, dtype=torch.double, requires_grad=True)
    assert torch.allclose(log_concentration(logits).exp(), F.elu(logits) + 1, rtol=1e-12)
    assert torch.autograd.gradcheck(log_concentration, logits[[3, 10, 15]].detach().requires_grad_())
    assert log_concentration(torch.tensor([-500.0])).item() == -500


def test_eval_mode_is_the_mean() -> None:
    c = F.elu(LOGITS) + 1
    assert Dirichlet()(LOGITS).tolist() == pytest.approx((c / c.sum()).tolist(), rel=1e-12)
    assert torch.equal(Dirichlet().draw(LOGITS, draw_of(LOGITS, random=False)), Dirichlet()(LOGITS))
    assert torch.autograd.gradcheck(Dirichlet(), LOGITS.clone().requires_grad_())


def test_draws_have_the_moments_of_the_distribution_and_the_gradient_of_its_mean() -> None:
    logits, count = LOGITS.clone().requires_grad_(), 2000
    drawn = torch.stack([Dirichlet().draw(logits, draw_of(LOGITS, step)) for step in range(count)])
    exact = torch.distributions.Dirichlet(F.elu(LOGITS) + 1)
    error = 4 * exact.variance.sqrt() / count**0.5
    assert ((drawn.mean(0) - exact.mean).abs() < error).all()
    c = (F.elu(LOGITS) + 1).numpy()
    excess = beta(c, c.sum() - c).stats(moments="k")
    for found, expected, kurtosis in zip(drawn.var(0).tolist(), exact.variance.tolist(), excess, strict=True):
        assert found == pytest.approx(expected, rel=4 * ((kurtosis + 2) / count) ** 0.5)
    assert drawn.sum(1).detach().tolist() == pytest.approx([1.0] * count)
    found = torch.stack([torch.autograd.grad(w, logits, retain_graph=True)[0] for w in drawn.mean(0)])
    jacobian = torch.autograd.functional.jacobian(Dirichlet(), LOGITS)
    assert torch.allclose(found, jacobian, atol=0.02)
    assert jacobian.abs().max() > 0.14


def test_the_gradient_of_a_draw_equals_finite_differences() -> None:
    """At a given noise the weights are a smooth function of the logits."""
    vector = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.double)
    for step in range(20):
        logits = LOGITS.clone().requires_grad_()
        (found,) = torch.autograd.grad(Dirichlet().draw(logits, draw_of(LOGITS, step)) @ vector, logits)
        for i, unit in enumerate(torch.eye(4, dtype=torch.double)):
            ends = [
                Dirichlet().draw(a, draw_of(a, step)) @ vector for a in (LOGITS + 1e-5 * unit, LOGITS - 1e-5 * unit)
            ]
            assert found[i].item() == pytest.approx((ends[0] - ends[1]).item() / 2e-5, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("logit", [-3.0, 0.0, 0.5, 40.0])
def test_gamma_numbers_follow_their_distribution(logit: float) -> None:
    c = float(F.elu(torch.tensor(logit, dtype=torch.double)) + 1)
    uniform = torch.rand(2, 4000, dtype=torch.double, generator=torch.Generator().manual_seed(0)).tolist()
    assert kstest(log_gamma([logit] * 4000, *uniform)[0].exp().numpy(), gamma(c).cdf).pvalue > 1e-3
    tails = [1e-15, 1e-9, 1e-3, 0.5, 0.999, 1 - 1e-9]
    found = log_gamma([logit] * 6, tails, [1.0] * 6)[0].exp().tolist()  # a factor of 1: those of Gamma(c + 1)
    assert found == pytest.approx(gamma(c + 1).ppf(tails).tolist(), rel=1e-6)


def test_far_logits_stay_finite() -> None:
    for logits in (torch.tensor([-60.0, -60.0, -61.0, -70.0]), torch.tensor([500.0, -80.0, 0.0, 500.0])):
        weights = Dirichlet().draw(logits.requires_grad_(), draw_of(logits))
        assert weights.sum().item() == pytest.approx(1)
        assert torch.autograd.grad(weights[0], logits)[0].isfinite().all()


def test_in_edges_can_rank_differently_by_mean_and_by_softmax() -> None:
    def space(choose: Chooser, /) -> torch.nn.Module:
        names = dict.fromkeys("xyz", torch.nn.Identity)
        return choose.inputs("node", {0: lambda: choose("one", names), 1: lambda: choose("two", names)}, keep=1)

    kept = {}
    for read in ("mean", "softmax"):
        supernet = Supernet(SearchSpace("s", space), relaxation={"name": "dirichlet", "read": read})
        supernet.arch["one"].data = torch.tensor([1.0, -3.0, -3.0])  # mean 0.95, softmax 0.96
        supernet.arch["two"].data = torch.tensor([4.2, 0.0, 0.0])  # mean 0.72, softmax 0.97
        kept[read] = supernet.derive().choices["node"]
        assert supernet.mixing_weights()["two"].max().item() == pytest.approx(5.2 / 7.2)
    assert kept == {"mean": (0,), "softmax": (1,)}
