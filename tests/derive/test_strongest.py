"""Derivation: mixing weights rank candidates and edges."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nas.derive.margins import margins_of
from nas.derive.strongest import choose_strongest
from nas.errors import DivergedError
from nas.genotype.decision import NONE, Choice, Decision

OPERATIONS = ("conv", "pool", NONE)


def operation(label: str, candidates: tuple[str, ...] = OPERATIONS, *conditions: Any) -> Decision:
    return Decision(label, "operation", candidates, conditions=conditions)


def node(count: int, keep: int | None, candidates: tuple[str, ...] = OPERATIONS) -> dict[str, Decision]:
    """A node `n` with an operation on each in-edge, `e0`, `e1`, ..."""
    edges = [operation(f"e{s}", candidates, ("n", s)) for s in range(count)]
    kept = count if keep is None else min(keep, count)
    return {d.label: d for d in [Decision("n", "inputs", tuple(range(count)), kept, keep is not None), *edges]}


def listed(*decisions: Decision) -> dict[str, Decision]:
    return {decision.label: decision for decision in decisions}


def tensors(**weights: list[float]) -> dict[str, Tensor]:
    return {label: torch.tensor(values) for label, values in weights.items()}


def softmax(**logits: list[float]) -> dict[str, Tensor]:
    return {label: torch.tensor(values).softmax(0) for label, values in logits.items()}


def choices(
    decisions: Mapping[str, Decision], weights: Mapping[str, Tensor], **costs: list[float]
) -> dict[str, Choice]:
    return choose_strongest(decisions, weights, costs)


def leads(decisions: Mapping[str, Decision], weights: Mapping[str, Tensor]) -> dict[str, float]:
    return margins_of(decisions, weights, choose_strongest(decisions, weights))


def test_the_largest_mixing_weight_wins() -> None:
    decisions = listed(
        operation("a"), Decision("w", "width", (4, 8, 16)), Decision("d", "depth", (1, 3)), operation("b", (NONE, "x"))
    )
    weights = tensors(a=[0.2, 0.5, 0.3], w=[0.1, 0.2, 0.7], d=[0.6, 0.4], b=[0.9, 0.1])
    assert choices(decisions, weights) == {"a": "pool", "w": 16, "d": 1, "b": NONE}
    assert leads(decisions, weights) == pytest.approx({"a": 0.2, "w": 0.5, "d": 0.2, "b": 0.8})


def test_what_has_no_alternative_has_no_margin() -> None:
    assert leads(listed(operation("a", ("x",))), tensors(a=[1.0])) == {}
    uniform = [1 / 3] * 3
    for keep in (None, 2):  # all in-edges stay
        assert leads(node(2, keep), tensors(e0=uniform, e1=uniform)) == {"e0": 0.0, "e1": 0.0}
    weights = tensors(e0=[0.1, 0.9], e1=[0.7, 0.3])
    assert leads(node(2, 2, ("conv", NONE)), weights) == {}, "`none` is no alternative on an edge that stays"


def test_edges_are_ranked_by_mixing_weight_where_logits_say_otherwise() -> None:
    # e0 has the larger logits, but they are as large for all its candidates; e1 is the more decided edge.
    weights = softmax(e0=[3.0, 2.9, -9.0], e1=[1.0, -2.0, -9.0])
    found = choices(node(2, 1), weights)
    assert found == {"n": (1,), "e1": "conv"}


def test_none_takes_its_share_though_it_is_never_derived() -> None:
    # By logits besides `none`, e0 is stronger (5 > 1); its mixing weight, exp(5) of exp(10), is the smaller.
    found = choices(node(2, 1), softmax(e0=[5.0, 0.0, 10.0], e1=[1.0, 0.0, 0.0]))
    assert found == {"n": (1,), "e1": "conv"}


def test_edges_with_fewer_candidates_are_compared_by_mixing_weight() -> None:
    decisions = {**node(1, 1), **node(2, 1)}
    decisions["e1"] = operation("e1", ("conv", "pool"), ("n", 1))
    weights = softmax(e0=[1.0, 0.9, 0.9], e1=[0.5, 0.0])
    assert weights["e1"].max() > weights["e0"].max()
    assert choices(decisions, weights) == {"n": (1,), "e1": "conv"}


@given(st.lists(st.floats(-20, 20), min_size=3, max_size=3), st.integers(0, 2))
def test_an_offset_of_all_logits_of_an_edge_changes_nothing(offsets: list[float], keep: int) -> None:
    logits = {"e0": [0.3, -0.8, 0.4], "e1": [1.3, 0.2, 0.1], "e2": [-0.5, 0.6, -0.4]}
    moved = {
        label: [x + offset for x in values] for (label, values), offset in zip(logits.items(), offsets, strict=True)
    }
    decisions = node(3, keep + 1)
    assert choices(decisions, softmax(**moved)) == choices(decisions, softmax(**logits))


weight_lists = st.lists(st.floats(0.0, 1.0, width=16), min_size=3, max_size=3)


@given(st.lists(weight_lists, min_size=1, max_size=5), st.data())
def test_a_node_keeps_its_strongest_edges(values: list[list[float]], data: st.DataObject) -> None:
    asked = data.draw(st.none() | st.integers(1, len(values)))
    keep, pruned = asked or len(values), asked is not None
    decisions = node(len(values), asked)
    weights = tensors(**{f"e{i}": v for i, v in enumerate(values)})
    found = choices(decisions, weights)
    lead = margins_of(decisions, weights, found)
    strength = [max(v[:2] if pruned else v) for v in values]
    kept = found["n"]
    assert isinstance(kept, tuple)
    assert decisions["n"].accepts(kept)
    assert list(kept) == sorted(kept)
    assert sum(strength[s] for s in kept) == max(
        sum(strength[s] for s in some) for some in itertools.combinations(range(len(values)), keep)
    )
    assert found.keys() == {"n", *(f"e{s}" for s in kept)}
    assert lead.keys() == {label for label in found if label != "n" or keep < len(values)}
    for source in kept:
        chosen = found[f"e{source}"]
        assert values[source][OPERATIONS.index(str(chosen))] == strength[source]
        assert not (pruned and chosen == NONE)
    rest = [strength[s] for s in range(len(values)) if s not in kept]
    assert lead.get("n") == (min(strength[s] for s in kept) - max(rest) if rest else None)


def test_a_node_that_keeps_all_edges_may_derive_none() -> None:
    weights = tensors(e0=[0.1, 0.1, 0.8], e1=[0.5, 0.3, 0.2])
    assert choices(node(2, None), weights) == {"n": (0, 1), "e0": NONE, "e1": "conv"}
    assert choices(node(2, 1), weights) == {"n": (1,), "e1": "conv"}


def test_the_first_node_of_a_pruned_cell_never_derives_none_though_all_its_edges_stay() -> None:
    found = choices(node(2, 2), tensors(e0=[0.1, 0.2, 0.7], e1=[0.3, 0.1, 0.6]))
    assert found == {"n": (0, 1), "e0": "pool", "e1": "conv"}


def test_the_margin_of_a_pruned_edge_leaves_none_out() -> None:
    weights = tensors(e0=[0.3, 0.2, 0.5], e1=[0.1, 0.1, 0.8])
    assert leads(node(2, 1), weights) == pytest.approx({"n": 0.2, "e0": 0.1})


def test_the_margin_of_a_node_is_that_of_the_weakest_edge_it_keeps() -> None:
    weights = tensors(e0=[0.9, 0.1, 0.0], e1=[0.3, 0.5, 0.2], e2=[0.6, 0.2, 0.2])
    assert leads(node(3, 2), weights)["n"] == pytest.approx(0.1)


def test_an_edge_that_can_only_be_none_is_the_weakest() -> None:
    decisions = node(3, 1)
    decisions["e0"] = operation("e0", (NONE,), ("n", 0))
    weights = tensors(e0=[1.0], e1=[0.1, 0.1, 0.8], e2=[0.2, 0.1, 0.7])
    assert choices(decisions, weights) == {"n": (2,), "e2": "conv"}
    assert choices({**decisions, "n": Decision("n", "inputs", (0,), 1)}, weights) == {"n": (0,), "e0": NONE}


def test_an_edge_without_a_decision_stays() -> None:
    decisions = node(3, 2)
    del decisions["e1"]
    weights = tensors(e0=[0.9, 0.1, 0.0], e2=[0.8, 0.2, 0.0])
    assert choices(decisions, weights) == {"n": (0, 1), "e0": "conv"}


def test_ties_go_to_the_cheaper_then_to_the_first() -> None:
    decisions = listed(operation("a", ("x", "y", "z")))
    tied = tensors(a=[0.4, 0.4, 0.2])
    assert choices(decisions, tied) == {"a": "x"}
    assert choices(decisions, tied, a=[3.0, 2.0, 1.0]) == {"a": "y"}
    assert choices(decisions, tied, a=[2.0, 2.0, 1.0]) == {"a": "x"}
    assert choices(decisions, tied, b=[2.0, 1.0, 1.0]) == {"a": "x"}
    assert choices(decisions, tensors(a=[0.41, 0.39, 0.2]), a=[3.0, 2.0, 1.0]) == {"a": "x"}
    assert leads(decisions, tied) == {"a": 0.0}


def test_tied_edges_go_to_the_first_whatever_they_cost() -> None:
    tied = tensors(**{f"e{s}": [0.4, 0.3, 0.3] for s in range(3)})
    assert choices(node(3, 2), tied)["n"] == choices(node(3, 2), tied, n=[3.0, 2.0, 1.0])["n"] == (0, 1)


def test_labels_inside_candidates_not_chosen_are_absent() -> None:
    decisions = listed(
        operation("a", ("x", "y")), operation("b", ("p", "q"), ("a", "x")), operation("c", ("p", "q"), ("b", "p"))
    )
    weights = tensors(a=[0.9, 0.1], b=[0.8, 0.2], c=[0.3, 0.7])
    assert choices(decisions, weights) == {"a": "x", "b": "p", "c": "q"}
    assert choices(decisions, {**weights, "a": torch.tensor([0.1, 0.9])}) == {"a": "y"}
    other = {**weights, "b": torch.tensor([0.2, 0.8])}
    assert choices(decisions, other).keys() == leads(decisions, other).keys() == {"a", "b"}


def test_a_shared_label_may_stand_before_a_decision_it_depends_on() -> None:
    decisions = listed(
        operation("a", ("x", "y")), operation("s", ("p", "q"), ("a", "x"), ("b", "y")), operation("b", ("x", "y"))
    )
    weights = tensors(a=[0.1, 0.9], s=[0.1, 0.9], b=[0.1, 0.9])
    assert choices(decisions, weights) == {"a": "y", "b": "y", "s": "q"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nothing_is_derived_from_weights_that_are_not_finite(value: float) -> None:
    decisions = listed(operation("a"), operation("b"))
    weights = tensors(a=[0.25, 0.5, 0.25], b=[0.5, value, 0.25])
    with pytest.raises(DivergedError, match=r"'b'.*got \[0.5, "):
        choose_strongest(decisions, weights)
