"""Closed forms, signs and gradients of the terms on the arch parameters."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nas.cost.latency import tabulated
from nas.cost.space_cost import Cost, costs
from nas.errors import ConfigError, NASError
from nas.files import convert
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.multilevel.regularizers import (
    Regularizer,
    Term,
    beta_decay,
    complete_terms,
    create_terms,
    entropy,
    expected_cost,
    l2_to_uniform,
    ramp,
)
from nas.registry import kind, register
from nas.space.chooser import Chooser
from nas.space.definition import find_space, search_space
from nas.supernet import Supernet
from states import same


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
RESOURCES = {"cost": lambda: COST, "flops": lambda: FLOPS, "latency": lambda: LATENCY}


def term(name: str, **arguments: Any) -> Regularizer:
    (created,) = create_terms([{"name": name, "weight": 1, **arguments}], "regularizers", RESOURCES)
    return created.function


TERMS = {name: term(name) for name in kind("regularizer").names()}
TERMS["log expected_cost"] = term("expected_cost", log=True)
TERMS["expected_cost above a target"] = term("expected_cost", target=15)
TERMS["log expected_cost above a target"] = term("expected_cost", target=15, log=True)


def supernet_at(logits: dict[str, list[float]], dtype: torch.dtype = torch.double) -> Supernet:
    supernet = Supernet(regularized).to(dtype)
    for label, values in logits.items():
        supernet.arch[label].data = torch.tensor(values, dtype=dtype)
    return supernet


def gradients(regularizer: Regularizer, supernet: Supernet) -> dict[str, Tensor]:
    found = torch.autograd.grad(regularizer(supernet), list(supernet.arch.values()), allow_unused=True)
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
    for reference in (10, 0.5):
        assert expected_cost(one_hot, cost=COST, reference=reference).item() == pytest.approx(at_one_hot / reference)
    assert expected_cost(one_hot, cost=COST, log=True).item() == pytest.approx(math.log(at_one_hot / at_uniform))


def test_a_target_cost_adds_nothing_up_to_it(uniform: Supernet) -> None:
    cost = (2 + 10) / 2 + (2 + 10 + 26) / 3 + 2
    for target in (cost - 5, cost - 1e-3, cost + 1e-3, 1e6):
        above = max(cost / target - 1, 0)
        assert expected_cost(uniform, cost=COST, target=target).item() == pytest.approx(above, rel=1e-9)
        logarithm = expected_cost(uniform, cost=COST, target=target, log=True).item()
        assert logarithm == pytest.approx(math.log1p(above), rel=1e-9)
        found = gradients(term("expected_cost", target=target), uniform)["three"]
        assert found[2] > 0 > found[0] if above else not found.any()


def test_a_target_counts_as_many_in_edges_as_a_node_keeps() -> None:
    options: dict[str, Any] = {"channels": 2, "cells": 3, "nodes": 2}
    description = find_space("darts").describe(**options)
    supernet, cost = Supernet("darts", **options).double(), costs(description)
    generator = torch.Generator().manual_seed(0)
    labels = [label for label, decision in description.decisions.items() if decision.kind == "inputs"]
    sources = {label: description.decisions[label].candidates for label in labels}
    chosen = dict.fromkeys(supernet.arch, "sep_conv_3x3")
    drawn = []
    for _ in range(300):  # the mean over in-edges that are drawn at random
        kept = {}
        for label in labels:
            two = torch.randperm(len(sources[label]), generator=generator)[:2].tolist()
            kept[label] = tuple(sorted(int(sources[label][i]) for i in two))
        active = {label: c for label, c in chosen.items() if description.decisions[label].active(kept)}
        drawn.append(cost.of({**kept, **active}))
    for label, logits in supernet.arch.items():
        logits.data[supernet.decisions[label].candidates.index("sep_conv_3x3")] = 1e4
    target = min(drawn) / 2
    found = (expected_cost(supernet, cost=cost, target=target).item() + 1) * target
    assert found == pytest.approx(sum(drawn) / len(drawn), rel=0.01)
    assert expected_cost(supernet, cost=cost, reference=target).item() * target > 1.1 * found, "counts all in-edges"


def test_a_target_that_no_network_meets_names_the_cheapest() -> None:
    with pytest.raises(ConfigError, match=r"'target' .*at least 6, which the cheapest network costs, got 5\.5"):
        expected_cost(supernet_at(LOGITS), cost=COST, target=5.5)
    assert expected_cost(supernet_at(LOGITS), cost=COST, target=6) > 0
    with pytest.raises(ConfigError, match=r"'target' or 'reference', got 9 and 3"):
        expected_cost(supernet_at(LOGITS), cost=COST, target=9, reference=3)


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
    for label, gradient in gradients(term("expected_cost", log=log), supernet_at(LOGITS)).items():
        assert gradient[0] < 0 < gradient[-1] or label == "one"


def test_beta_decay_pulls_every_logit_by_its_weight() -> None:
    supernet = supernet_at(LOGITS)
    for label, gradient in gradients(beta_decay, supernet).items():
        expected = supernet.arch[label].softmax(0) / 2 if label != "one" else torch.zeros(1, dtype=torch.double)
        torch.testing.assert_close(gradient, expected.detach())


def test_terms_touch_the_arch_parameters_alone() -> None:
    supernet = supernet_at(LOGITS)
    for each in TERMS.values():
        each(supernet).backward()
    assert all(p.grad is None for p in supernet.network.parameters())


def test_a_space_without_decisions_has_nothing_to_regularize() -> None:
    @search_space("undecided")
    def undecided(choose: Chooser, /) -> nn.Module:
        return nn.Linear(2, 2)

    supernet = Supernet(undecided)
    assert entropy(supernet) == l2_to_uniform(supernet) == beta_decay(supernet) == 0
    assert expected_cost(supernet, cost=costs(undecided.describe())) == 1


def test_a_term_scales_its_regularizer() -> None:
    supernet = supernet_at(LOGITS)
    constant, ramped = create_terms(
        [{"name": "beta_decay", "weight": 2}, {"name": "entropy", "weight": 0.5, "ramp": True}], "regularizers", {}
    )
    torch.testing.assert_close(constant(supernet, 0.25), 2 * beta_decay(supernet))
    torch.testing.assert_close(ramped(supernet, 0.25), 0.5 * 0.25 * entropy(supernet))


def test_a_term_without_weight_is_not_computed() -> None:
    def never(supernet: Supernet) -> Tensor:
        raise AssertionError

    assert Term("x", 1.0, True, never)(supernet_at(LOGITS), 0.0) == 0


def test_a_regularizer_of_others_can_price_and_be_there_twice() -> None:
    @register("regularizer", "test_above")
    def above(supernet: Supernet, *, flops: Cost, threshold: float = 0.0) -> Tensor:
        return (flops.expected(supernet.mixing_weights()) - threshold).relu()

    entries = [
        {"name": "test_above", "weight": 1},
        {"name": "test_above", "weight": 1, "threshold": 9, "record_as": "above nine"},
    ]
    supernet = supernet_at(LOGITS)
    terms = create_terms(entries, "regularizers", {**RESOURCES, "latency": no_latency})
    assert [term.name for term in terms] == ["test_above", "above nine"]
    assert (terms[0](supernet) - terms[1](supernet)).item() == pytest.approx(9)
    with pytest.raises(ConfigError, match=r"regularizers.*'test_above'.*record_as"):
        create_terms([entries[0], entries[0]], "regularizers", RESOURCES)


def no_latency() -> Cost:
    raise AssertionError("no regularizer asked for it")


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


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "entrophy", "weight": 1}, r"^regularizers\[0\]: .*'entrophy' \(did you mean 'entropy'\?\)"),
        ({"name": "entropy"}, r"^regularizers\[0\]: .*'entropy'.*'weight'"),
        ({"name": "entropy", "weight": "x"}, r"^regularizers\[0\].weight must .*, got 'x'"),
        ({"name": "entropy", "weight": 1, "ramp": 3}, r"^regularizers\[0\].ramp must .*, got 3"),
        ({"name": "entropy", "weight": 1, "log": True}, r"^regularizers\[0\].log .*'entropy'"),
        ({"name": "expected_cost", "weight": 1, "cost": 3}, r"^regularizers\[0\].cost .*'expected_cost'"),
        ({"name": "expected_cost", "weight": 1, "reference": 0}, r"^regularizers\[0\].reference must .* 0, got 0"),
    ],
)
def test_bad_terms_name_their_place(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(NASError, match=message):
        complete_terms([entry], "regularizers")


def test_terms_need_what_they_price_by() -> None:
    with pytest.raises(ConfigError, match=r"^regularizers\[0\]: .*'expected_flops'.*'flops'"):
        create_terms([{"name": "expected_flops", "weight": 1}], "regularizers", {})
    with pytest.raises(ConfigError, match="must be above 0, got 0"):
        expected_cost(supernet_at(LOGITS), cost=Cost({}, 0.0, {}))


def test_complete_terms_state_all_their_arguments() -> None:
    assert complete_terms([{"name": "expected_cost", "weight": 0.5, "log": True}], "regularizers") == (
        {"name": "expected_cost", "weight": 0.5, "ramp": False, "reference": None, "log": True, "target": None},
    )


@pytest.mark.parametrize("name", kind("regularizer").names())
def test_levels_with_a_regularizer_that_are_saved_and_loaded_continue_bit_for_bit(name: str) -> None:
    """Also where its weight rises: the state has the step."""
    relaxation = "dirichlet" if name.startswith("dirichlet") else "sigmoid" if name == "zero_one" else "softmax"
    terms = [{"name": name, "weight": 0.1, "ramp": True}]
    common = {"loss": "l", "split": "s", "optimizer": {"name": "adam", "lr": 0.1}}

    def built() -> Multilevel:
        levels = {
            "lower": convert({"parameters": ["network.*"], **common}, Level, "lower"),
            "upper": convert({"parameters": ["arch.*"], "regularizers": terms, **common}, Level, "upper"),
        }
        supernet = Supernet(find_space("regularized"), relaxation=relaxation)
        losses = {"l": lambda net, x: net(x).square().mean()}
        return Multilevel(
            supernet, levels, losses, lambda split, index: torch.full((1, 1, 4, 4), index + 1.0), 6, RESOURCES
        )

    whole, second = built(), built()
    for k in range(6):
        whole.step(k)
        first, second = second, built()
        second.model.load_state_dict(first.model.state_dict())
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        second.step(k)
    assert same(whole.model.state_dict(), second.model.state_dict())


def test_by_default_a_term_has_its_whole_weight_and_a_ramp_begins_at_once(uniform: Supernet) -> None:
    (created,) = create_terms([{"name": "entropy", "weight": 3.0, "ramp": True}], "regularizers", RESOURCES)
    assert created(uniform).item() == pytest.approx(3)
    assert created(uniform, 0.5).item() == pytest.approx(1.5)
    assert [ramp(step, 12) for step in (0, 3, 12)] == [0.0, 0.25, 1.0]
