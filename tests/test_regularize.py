"""Closed forms, signs and gradients of the terms on the arch parameters."""

from __future__ import annotations

import math

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nas.choose import Chooser
from nas.cost import Cost, costs
from nas.errors import ConfigError, UnknownNameError
from nas.latency import tabulated
from nas.regularize import (
    REGULARIZERS,
    Regularizer,
    Term,
    beta_decay,
    entropy,
    expected_cost,
    l2_to_uniform,
    penalty,
    ramp,
    regularizer,
)
from nas.space import search_space
from nas.supernet import Supernet


@search_space("regularized")
def regularized(choose: Chooser, /) -> nn.Module:
    """Two, three and one candidate: of 2, 10 and 26 parameters, in this order."""
    kernels = {f"conv_{k}x{k}": lambda k=k: nn.Conv2d(1, 1, k, padding=k // 2) for k in (1, 3, 5)}
    two = {name: kernels[name] for name in ("conv_1x1", "conv_3x3")}
    one = {"conv_1x1": kernels["conv_1x1"]}
    return nn.Sequential(choose("two", two), choose("three", kernels), choose("one", one))


LOGITS = {"two": [0.3, -0.5], "three": [1.0, 0.2, -0.7], "one": [2.0]}
COST = costs(regularized.describe())
FLOPS = costs(regularized.describe(), "flops", (torch.zeros(1, 1, 6, 6),))
LATENCY = tabulated(
    FLOPS.decisions,
    {
        "two": {"conv_1x1": 1.0, "conv_3x3": 1.5},
        "three": {"conv_1x1": 1.0, "conv_3x3": 1.5, "conv_5x5": 3.0},
        "one": {"conv_1x1": 1.0},
    },
)
TERMS: dict[str, Regularizer] = {
    "entropy": regularizer("entropy"),
    "l2_to_uniform": regularizer("l2_to_uniform"),
    "beta_decay": regularizer("beta_decay"),
    "expected_cost": regularizer("expected_cost", cost=COST),
    "expected_flops": regularizer("expected_flops", cost=FLOPS),
    "expected_latency": regularizer("expected_latency", cost=LATENCY),
    "log expected_cost": regularizer("expected_cost", cost=COST, log=True),
}


def supernet_at(logits: dict[str, list[float]], dtype: torch.dtype = torch.double) -> Supernet:
    supernet = Supernet(regularized).to(dtype)
    for label, values in logits.items():
        supernet.arch[label].data = torch.tensor(values, dtype=dtype)
    return supernet


def gradients(term: Regularizer, supernet: Supernet) -> dict[str, Tensor]:
    found = torch.autograd.grad(term(supernet), list(supernet.arch.values()), allow_unused=True)
    return {
        k: torch.zeros_like(supernet.arch[k]) if g is None else g for k, g in zip(supernet.arch, found, strict=True)
    }


@pytest.fixture
def uniform() -> Supernet:
    return supernet_at({"two": [0.7, 0.7], "three": [0.0] * 3})


@pytest.fixture
def one_hot() -> Supernet:
    """So sharp that the other weights underflow to 0."""
    return supernet_at({"two": [1e4, 0.0], "three": [0.0, 0.0, 1e4]})


def test_every_term_is_tested() -> None:
    assert {name.split()[-1] for name in TERMS} == set(REGULARIZERS)


def test_entropy_and_distance_at_the_ends(uniform: Supernet, one_hot: Supernet) -> None:
    assert entropy(uniform).item() == pytest.approx(1, abs=1e-15)
    assert l2_to_uniform(uniform).item() == pytest.approx(0, abs=1e-15)
    assert entropy(one_hot).item() == 0
    assert l2_to_uniform(one_hot).item() == pytest.approx(1, abs=1e-15)


def test_closed_forms() -> None:
    supernet = supernet_at(LOGITS)
    h = d = b = 0.0
    for logits in (LOGITS["two"], LOGITS["three"]):
        n, total = len(logits), sum(math.exp(a) for a in logits)
        w = [math.exp(a) / total for a in logits]
        h -= sum(p * math.log(p) for p in w) / math.log(n) / 2
        d += sum((p - 1 / n) ** 2 for p in w) / (1 - 1 / n) / 2
        b += math.log(total) / 2
    assert entropy(supernet).item() == pytest.approx(h, rel=1e-14)
    assert l2_to_uniform(supernet).item() == pytest.approx(d, rel=1e-14)
    assert beta_decay(supernet).item() == pytest.approx(b, rel=1e-14)


def test_expected_cost_is_relative(uniform: Supernet, one_hot: Supernet) -> None:
    at_uniform, at_one_hot = (2 + 10) / 2 + (2 + 10 + 26) / 3 + 2, 2 + 26 + 2
    assert COST.uniform == pytest.approx(at_uniform)
    assert expected_cost(uniform, cost=COST).item() == pytest.approx(1, abs=1e-15)
    assert expected_cost(one_hot, cost=COST).item() == pytest.approx(at_one_hot / at_uniform)
    assert expected_cost(one_hot, cost=COST, reference=10).item() == pytest.approx(at_one_hot / 10)
    assert expected_cost(one_hot, cost=COST, log=True).item() == pytest.approx(math.log(at_one_hot / at_uniform))


@pytest.mark.parametrize("name", TERMS)
def test_gradients_equal_central_differences(name: str) -> None:
    supernet = supernet_at(LOGITS)
    found = gradients(TERMS[name], supernet)
    step = 1e-6
    for label, logits in LOGITS.items():
        for i in range(len(logits)):
            ends = [[a + (i == j) * sign * step for j, a in enumerate(logits)] for sign in (1, -1)]
            above, below = (TERMS[name](supernet_at({**LOGITS, label: end})).item() for end in ends)
            assert found[label][i].item() == pytest.approx((above - below) / (2 * step), abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
@pytest.mark.parametrize("name", TERMS)
def test_gradients_stay_finite_where_weights_underflow(name: str, dtype: torch.dtype) -> None:
    supernet = supernet_at({"two": [1e4, 0.0], "three": [0.0, 0.0, 1e4]}, dtype)
    assert all(g.isfinite().all() for g in gradients(TERMS[name], supernet).values())


@pytest.mark.parametrize(("name", "sharpens"), [("entropy", True), ("l2_to_uniform", False), ("beta_decay", False)])
def test_minimizing_sharpens_or_opens_the_decisions(name: str, sharpens: bool) -> None:
    supernet = supernet_at(LOGITS)
    before = {label: w.max().item() for label, w in supernet.mixing_weights().items() if len(w) > 1}
    optimizer = torch.optim.SGD(supernet.arch.values(), lr=0.5)
    for _ in range(20):
        optimizer.zero_grad()
        TERMS[name](supernet).backward()
        optimizer.step()
    after = supernet.mixing_weights()
    for label, strongest in before.items():
        assert (after[label].max().item() > strongest) == sharpens
        assert after[label].argmax() == torch.tensor(LOGITS[label]).argmax()


@pytest.mark.parametrize("log", [False, True])
def test_minimizing_expected_cost_prefers_cheap_candidates(log: bool) -> None:
    for label, gradient in gradients(regularizer("expected_cost", cost=COST, log=log), supernet_at(LOGITS)).items():
        assert gradient[0] < 0 < gradient[-1] or label == "one"


def test_beta_decay_pulls_every_logit_by_its_weight() -> None:
    supernet = supernet_at(LOGITS)
    for label, gradient in gradients(beta_decay, supernet).items():
        expected = supernet.arch[label].softmax(0) / 2 if label != "one" else torch.zeros(1, dtype=torch.double)
        torch.testing.assert_close(gradient, expected.detach())


def test_terms_touch_the_arch_parameters_alone() -> None:
    supernet = supernet_at(LOGITS)
    for term in TERMS.values():
        term(supernet).backward()
    assert all(p.grad is None for p in supernet.network.parameters())


def test_a_space_without_decisions_has_nothing_to_regularize() -> None:
    @search_space("undecided")
    def undecided(choose: Chooser, /) -> nn.Module:
        return nn.Linear(2, 2)

    supernet = Supernet(undecided)
    assert entropy(supernet) == l2_to_uniform(supernet) == beta_decay(supernet) == 0
    assert expected_cost(supernet, cost=costs(undecided.describe())) == 1


def test_penalty_sums_weighted_terms() -> None:
    supernet = supernet_at(LOGITS)
    terms = {Term("entropy", 0.5, ramp=True): entropy, Term("beta_decay", 2.0): beta_decay}
    expected = 0.5 * 0.25 * entropy(supernet) + 2 * beta_decay(supernet)
    torch.testing.assert_close(penalty(supernet, terms, ramped=0.25), expected)
    assert penalty(supernet, {}) == 0

    def never(supernet: Supernet) -> Tensor:
        raise AssertionError("a term of no weight costs nothing")

    torch.testing.assert_close(penalty(supernet, {Term("x", 1.0, ramp=True): never}, ramped=0.0), torch.zeros(()))


@pytest.mark.parametrize(
    ("step", "share"), [(0, 0), (20, 0), (21, 1 / 60), (50, 0.5), (80, 1), (81, 1), (100, 1), (120, 1)]
)
def test_ramp_is_linear_between_its_ends(step: int, share: float) -> None:
    assert ramp(step, 100, 0.2, 0.8) == pytest.approx(share, abs=1e-12)


@given(total=st.integers(1, 1000), start=st.floats(0, 0.9), length=st.floats(0.01, 0.1))
def test_ramp_never_falls(total: int, start: float, length: float) -> None:
    shares = [ramp(step, total, start, start + length) for step in range(total + 1)]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert min(shares) >= 0


@pytest.mark.parametrize(
    "bad", [(1, 0), (1, 10, 0.5, 0.5), (1, 10, -0.1, 1.0), (1, 10, 0.0, 1.5), (1, 10, 0.0, math.nan)]
)
def test_bad_ramps_are_errors(bad: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="0 <= start < end <= 1"):
        ramp(*bad)  # type: ignore[arg-type]


def test_bad_terms_are_errors() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'entropy'"):
        regularizer("entrophy")
    with pytest.raises(ConfigError, match="'expected_cost': missing a required argument: 'cost'"):
        regularizer("expected_cost")
    with pytest.raises(ConfigError, match="'entropy': got an unexpected keyword argument 'log'"):
        regularizer("entropy", log=True)
    free = Cost({}, 0.0, {})
    with pytest.raises(ConfigError, match="reference cost above 0, found 0"):
        expected_cost(supernet_at(LOGITS), cost=free)


def test_terms_are_read_strictly() -> None:
    term = msgspec.convert({"name": "entropy", "weight": 0.01, "ramp": True}, Term)
    assert term == Term("entropy", 0.01, ramp=True)
    with pytest.raises(msgspec.ValidationError, match="unknown field `ramped`"):
        msgspec.convert({"name": "entropy", "weight": 0.01, "ramped": True}, Term)
