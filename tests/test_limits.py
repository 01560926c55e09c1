"""Derivation under limits, against every genotype of small spaces."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nas.derive import choose_strongest
from nas.errors import ConfigError, UnknownNameError
from nas.genotype import NONE, Choice, Decision
from nas.space import find_space

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


def every(decisions: Mapping[str, Decision], choices: dict[str, Choice] | None = None) -> Iterator[dict[str, Choice]]:
    """Every genotype: decision by decision, those that exist."""
    choices = choices or {}
    label = next((label for label, d in decisions.items() if label not in choices and d.active(choices)), None)
    if label is None:
        yield choices
        return
    decision = decisions[label]
    options: Any = decision.candidates
    if decision.kind == "inputs":
        options = itertools.combinations(decision.candidates, decision.keep)
    pruned = any(decisions[parent].pruned for parent, _ in decision.conditions)
    for option in options:
        if not (option == NONE and pruned):
            yield from every(decisions, {**choices, label: option})


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
    found, margins = choose_strongest(decisions, weights, None, limits)
    assert kept(found, limits)
    possible = [choices for choices in every(decisions) if kept(choices, limits)]
    assert dict(found) in possible
    assert worth(decisions, weights, found) == max(worth(decisions, weights, choices) for choices in possible)
    assert all(margin >= 0 for margin in margins.values())
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
    free = choose_strongest({d.label: d for d in listed}, weights)[0]
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
    found, margins = choose_strongest({d.label: d for d in listed}, weights, None, {"skip": 1})
    assert found == {"a/0": (0, 1), "a/0<-0": "conv", "a/0<-1": "skip"}
    assert margins == pytest.approx({"a/0<-0": 0.0, "a/0<-1": 0.4}), "a choice that a limit forces leads by nothing"


def test_another_edge_takes_the_place_of_one_that_would_skip() -> None:
    listed = cell("a", 1, (2,))
    weights = {"a/0<-0": torch.tensor([0.1, 0.1, 0.8]), "a/0<-1": torch.tensor([0.5, 0.1, 0.4])}
    decisions = {d.label: d for d in listed}
    assert choose_strongest(decisions, weights)[0] == {"a/0": (0,), "a/0<-0": "skip"}
    found, margins = choose_strongest(decisions, weights, None, {"skip": 0})
    assert (found, margins["a/0"]) == ({"a/0": (1,), "a/0<-1": "conv"}, 0.0)


def test_a_whole_space_of_darts() -> None:
    decisions = find_space("darts").describe().decisions
    generator = torch.Generator().manual_seed(0)
    weights = {
        label: (torch.randn(8, generator=generator) + 3 * (torch.arange(8) == 3)).softmax(0)
        for label, decision in decisions.items()
        if decision.kind == "operation"
    }
    for most, expected in (({}, (8, 8)), ({"skip_connect": 2}, (2, 2)), ({"normal/skip_connect": 2}, (2, 8))):
        choices, _ = choose_strongest(decisions, weights, None, most)
        count = [sum(c == "skip_connect" and k.startswith(name) for k, c in choices.items()) for name in ("n", "r")]
        assert tuple(count) == expected


@pytest.mark.parametrize(
    ("limits", "error", "message"),
    [
        ({"skpi": 1}, UnknownNameError, r"candidate of a limit 'skpi' \(did you mean 'skip'"),
        ({"b/skip": 1}, UnknownNameError, "cell of a limit 'b'; known: a; a cell is what labels have"),
        (dict.fromkeys(OPERATIONS, 0), ConfigError, "no genotype has at most conv=0, pool=0, skip=0; allow more"),
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
    with pytest.raises(ConfigError, match="'i' must be inside one decision, got 'o' and 'p'"):
        choose_strongest({d.label: d for d in listed}, weights, None, {"skip": 1})
