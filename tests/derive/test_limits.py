"""Derivation under limits, against every genotype of small spaces."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from enumerated import every
from nas.derive.margins import margins_of
from nas.derive.strongest import choose_strongest
from nas.errors import ConfigError, UnknownNameError
from nas.genotype.decision import NONE, Choice, Decision
from nas.space.definition import find_space

OPERATIONS = ("conv", "pool", "skip")


def cell(
    name: str, keep: int | None, sizes: tuple[int, ...], operations: tuple[str, ...] = OPERATIONS
) -> list[Decision]:
    """Nodes with so many possible in-edges each, of which they keep some."""
    found = []
    for number, size in enumerate(sizes):
        node = f"{name}/{number}"
        kept = size if keep is None else min(keep, size)
        found.append(Decision(node, "inputs", tuple(range(size)), kept, keep is not None))
        found += [Decision(f"{node}<-{s}", "operation", operations, conditions=((node, s),)) for s in range(size)]
    return found


def kept(choices: Mapping[str, Choice], limits: Mapping[str, int]) -> bool:
    """Whether choices keep limits, in every cell."""
    cells = {label.rpartition("/")[0] for label in choices}
    return all(
        sum(chosen == name and label.rpartition("/")[0] == each for label, chosen in choices.items()) <= most
        for limit, most in limits.items()
        for where, _, name in [limit.rpartition("/")]
        for each in cells
        if where in ("", each)
    )


def worth(decisions: Mapping[str, Decision], weights: Mapping[str, Tensor], choices: Mapping[str, Choice]) -> Any:
    """By how many decisions each is inside of: the sum of the mixing weights of what was chosen, and what settles ties,
    the first sources, then the first candidates."""
    found = [[Fraction(0), 0, 0] for _ in range(3)]

    def depth(label: str) -> int:
        parents = [parent for parent, _ in decisions[label].conditions]
        return max((depth(p) + (decisions[p].kind != "inputs") for p in parents), default=0)

    for label, chosen in choices.items():
        if isinstance(chosen, tuple):
            found[depth(label)][1] -= sum(chosen)
        else:
            place = decisions[label].candidates.index(chosen)  # type: ignore[arg-type]
            found[depth(label)][0] += Fraction(weights[label].double()[place].item())
            found[depth(label)][2] -= place
    return found


def check(listed: list[Decision], weights: dict[str, Tensor], limits: dict[str, int]) -> dict[str, Choice]:
    """What is derived keeps the limits, and nothing that does is worth more."""
    decisions = {decision.label: decision for decision in listed}
    found = choose_strongest(decisions, weights, None, limits)
    assert kept(found, limits)
    possible = [choices for choices in every(decisions) if kept(choices, limits)]
    assert dict(found) in possible
    assert worth(decisions, weights, found) == max(worth(decisions, weights, choices) for choices in possible)
    assert all(margin >= 0 for margin in margins_of(decisions, weights, found).values())
    return found


def drawn(listed: list[Decision], data: st.DataObject) -> dict[str, Tensor]:
    values = st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.7, 0.75])  # few, so that there are ties
    return {d.label: torch.tensor([data.draw(values) for _ in d.candidates]) for d in listed if d.kind != "inputs"}


@given(st.data(), st.integers(0, 3), st.integers(0, 2), st.sampled_from([None, 1, 2]))
def test_it_is_the_best_of_all_genotypes(data: st.DataObject, skips: int, pools: int, keep: int | None) -> None:
    listed = cell("a", keep, (2, 3))
    check(listed, drawn(listed, data), {"skip": skips, "pool": pools})


@given(st.data(), st.integers(0, 2))
def test_each_cell_counts_by_itself(data: st.DataObject, most: int) -> None:
    listed = [*cell("a", 1, (2, 2)), *cell("b", None, (1, 1), (*OPERATIONS, NONE))]
    weights = drawn(listed, data)
    check(listed, weights, {"skip": most})
    found = check(listed, weights, {"b/skip": 0})
    free = choose_strongest({d.label: d for d in listed}, weights)
    assert {k: v for k, v in found.items() if k[0] == "a"} == {k: v for k, v in free.items() if k[0] == "a"}


@given(st.data(), st.integers(0, 2))
def test_decisions_inside_candidates(data: st.DataObject, most: int) -> None:
    """The outer choice comes first; a depth counts the blocks that exist."""
    listed = [
        Decision("outer", "operation", ("x", "y")),
        Decision("in/1", "operation", OPERATIONS, conditions=(("outer", "x"),)),
        Decision("in/2", "operation", OPERATIONS, conditions=(("outer", "x"),)),
        Decision("depth", "depth", (1, 2)),
        Decision("in/3", "operation", OPERATIONS, conditions=(("depth", 1), ("depth", 2))),
        Decision("in/4", "operation", OPERATIONS, conditions=(("depth", 2),)),
    ]
    check(listed, drawn(listed, data), {"skip": most})


@given(st.data(), st.sampled_from([None, 1, 2]))
def test_limits_that_do_not_bind_change_nothing(data: st.DataObject, keep: int | None) -> None:
    listed = [*cell("a", keep, (2, 3), (*OPERATIONS, NONE)), Decision("w", "width", (4, 8))]
    decisions, weights = {d.label: d for d in listed}, drawn(listed, data)
    prices = {label: [data.draw(st.sampled_from([1.0, 2.0])) for _ in weight] for label, weight in weights.items()}
    free = choose_strongest(decisions, weights, prices)
    assert choose_strongest(decisions, weights, prices, {"skip": 9, "pool": 9}) == free


def test_a_greedy_choice_would_be_worse() -> None:
    """Edge 0 gives its skip up, though its skip weighs more than that of edge 1: it has the better second choice."""
    listed = cell("a", None, (2,))
    weights = {"a/0<-0": torch.tensor([0.55, 0.0, 0.6]), "a/0<-1": torch.tensor([0.1, 0.1, 0.5])}
    decisions = {d.label: d for d in listed}
    found = choose_strongest(decisions, weights, None, {"skip": 1})
    assert found == {"a/0": (0, 1), "a/0<-0": "conv", "a/0<-1": "skip"}
    assert margins_of(decisions, weights, found) == pytest.approx({"a/0<-0": 0.0, "a/0<-1": 0.4})


def test_an_edge_is_worth_what_the_limit_leaves_of_it() -> None:
    """The skip that edge 0 may not choose is no reason to keep this edge."""
    weights = {"a/0<-0": torch.tensor([0.55, 0.0, 0.6]), "a/0<-1": torch.tensor([0.57, 0.1, 0.1])}
    decisions = {d.label: d for d in cell("a", 1, (2,))}
    assert choose_strongest(decisions, weights, None, {"skip": 0}) == {"a/0": (1,), "a/0<-1": "conv"}


@pytest.mark.parametrize("limits", [{}, {"skip": 2}, {"skip": 0}])
def test_in_edges_count_by_their_factors(limits: dict[str, int]) -> None:
    weights = {"a/0<-0": torch.tensor([0.4, 0.3, 0.3]), "a/0<-1": torch.tensor([0.3, 0.4, 0.3])}
    decisions = {d.label: d for d in cell("a", 1, (2,))}
    for factors, expected in (
        ([0.7, 0.3], {"a/0": (0,), "a/0<-0": "conv"}),
        ([0.3, 0.7], {"a/0": (1,), "a/0<-1": "pool"}),
    ):
        assert choose_strongest(decisions, weights | {"a/0": torch.tensor(factors)}, None, limits) == expected


def test_an_edge_without_a_decision_competes_with_its_strength_1() -> None:
    edge = Decision("a/0<-0", "operation", OPERATIONS, conditions=(("a/0", 0),))
    decisions = {d.label: d for d in (Decision("a/0", "inputs", (0, 1), 1, True), edge)}
    assert choose_strongest(decisions, {"a/0<-0": torch.tensor([0.9, 0.1, 0.0])}, None, {"skip": 1}) == {"a/0": (1,)}


def test_the_strictest_of_several_limits_applies() -> None:
    decisions = {d.label: d for d in cell("a", None, (2,))}
    weights = {f"a/0<-{i}": torch.tensor([0.1, 0.2, 0.7 + 0.01 * i]) for i in range(2)}
    for limits in ({"skip": 2, "a/skip": 1}, {"skip": 1, "a/skip": 2}):
        found = choose_strongest(decisions, weights, None, limits)
        assert found == {"a/0": (0, 1), "a/0<-0": "pool", "a/0<-1": "skip"}


def test_of_equal_weights_the_cheapest_sum_of_prices_is_taken() -> None:
    decisions = {d.label: d for d in cell("a", None, (2,))}
    weights = {f"a/0<-{i}": torch.tensor([0.5, 0.0, 0.5]) for i in range(2)}
    prices = {"a/0<-0": [5.0, 0.0, 1.0], "a/0<-1": [2.0, 0.0, 1.0]}
    found = choose_strongest(decisions, weights, prices, {"skip": 1})
    assert found == {"a/0": (0, 1), "a/0<-0": "skip", "a/0<-1": "conv"}


def test_another_edge_takes_the_place_of_one_that_would_skip() -> None:
    listed = cell("a", 1, (2,))
    weights = {"a/0<-0": torch.tensor([0.1, 0.1, 0.8]), "a/0<-1": torch.tensor([0.5, 0.1, 0.4])}
    decisions = {d.label: d for d in listed}
    assert choose_strongest(decisions, weights) == {"a/0": (0,), "a/0<-0": "skip"}
    found = choose_strongest(decisions, weights, None, {"skip": 0})
    assert found == {"a/0": (1,), "a/0<-1": "conv"}
    assert margins_of(decisions, weights, found)["a/0"] == 0.0, "a choice that a limit forces has no lead"


def test_a_whole_space_of_darts() -> None:
    decisions = find_space("darts").describe().decisions
    generator = torch.Generator().manual_seed(0)
    weights = {
        label: (torch.randn(8, generator=generator) + 3 * (torch.arange(8) == 3)).softmax(0)
        for label, decision in decisions.items()
        if decision.kind == "operation"
    }
    for most, expected in (({}, (8, 8)), ({"skip_connect": 2}, (2, 2)), ({"normal/skip_connect": 2}, (2, 8))):
        choices = choose_strongest(decisions, weights, None, most)
        count = [sum(c == "skip_connect" and k.startswith(name) for k, c in choices.items()) for name in ("n", "r")]
        assert tuple(count) == expected


@pytest.mark.parametrize(
    ("limits", "error", "message"),
    [
        ({"skpi": 1}, UnknownNameError, r"limit 'skpi' .*'skip'"),
        ({"b/skip": 1}, UnknownNameError, "limit 'b'; known: a;"),
        (dict.fromkeys(OPERATIONS, 0), ConfigError, "limits: .*conv=0, pool=0, skip=0"),
    ],
)
def test_limits_that_cannot_be_kept(limits: dict[str, int], error: type[Exception], message: str) -> None:
    listed = cell("a", 1, (2,))
    weights = {d.label: torch.ones(3) / 3 for d in listed if d.kind == "operation"}
    with pytest.raises(error, match=message):
        choose_strongest({d.label: d for d in listed}, weights, None, limits)


def test_a_limited_decision_inside_several_others_is_refused() -> None:
    listed = [Decision("o", "operation", ("x", "y")), Decision("p", "operation", ("x", "y")),
              Decision("i", "operation", OPERATIONS, conditions=(("o", "x"), ("p", "x")))]  # fmt: skip
    weights = {d.label: torch.ones(len(d.candidates)) for d in listed}
    with pytest.raises(ConfigError, match=r"limits: 'i' .*got 'o' and 'p'"):
        choose_strongest({d.label: d for d in listed}, weights, None, {"skip": 1})
