"""Columns and their order: forward, as given where that is as good, with few crossings."""

from __future__ import annotations

import itertools
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.draw.column_order import order_columns
from nas.draw.layout import Size, layered


@given(st.integers(1, 9), st.randoms(use_true_random=False))
def test_columns_lead_forward_and_ends_have_their_own(count: int, random: Random) -> None:
    nodes = {str(i): Size(30, 20) for i in range(count)}
    pairs = [pair for pair in itertools.combinations(nodes, 2) if random.random() < 0.4]
    edges = {pair: random.choice([None, Size(40, 15)]) for pair in pairs}
    edges |= {("in", node): None for node in nodes} | {(node, "out"): None for node in nodes}
    columns = order_columns({**nodes, "in": Size(0, 0), "out": Size(0, 0)}, edges, {"in"}, ["out"]).columns
    rank = {item: i for i, column in enumerate(columns) for item in column}
    assert all(rank[a] < rank[b] for a, b in edges)
    assert columns[0] == ["in"]
    assert columns[-1] == ["out"]


def test_order_of_nodes_is_kept_where_nothing_speaks_against_it() -> None:
    nodes = dict.fromkeys(["a", "upper", "middle", "lower", "z"], Size(20, 20))
    edges = {(a, b): None for m in ("upper", "middle", "lower") for a, b in (("a", m), (m, "z"))}
    boxes = layered(nodes, edges).boxes
    assert boxes["upper"].y < boxes["middle"].y < boxes["lower"].y
    assert boxes["a"].y == pytest.approx(boxes["middle"].y) == pytest.approx(boxes["z"].y)


def test_crossings_are_avoided() -> None:
    nodes = dict.fromkeys(["a", "b", "c", "d"], Size(20, 20))
    boxes = layered(nodes, {("a", "d"): None, ("b", "c"): None}).boxes
    assert (boxes["a"].y < boxes["b"].y) == (boxes["d"].y < boxes["c"].y)


@pytest.mark.parametrize("mirrored", [False, True])
def test_inputs_keep_their_order_in_a_mirrored_graph(mirrored: bool) -> None:
    middle = ["x", "y", "z"] if mirrored else ["z", "y", "x"]
    nodes = dict.fromkeys(["a", "b", *middle, "end"], Size(20, 20))
    edges = {("a", "x"): None, ("a", "y"): None, ("b", "y"): None, ("b", "z"): None}
    first, *_ = order_columns(nodes, edges | {(m, "end"): None for m in middle}).columns
    assert first == ["a", "b"]


def test_a_label_takes_the_emptiest_column_it_passes() -> None:
    label = Size(40, 15)
    nodes = dict.fromkeys("abcd", Size(20, 20))
    edges = {("a", "b"): label, ("b", "c"): label, ("c", "d"): None, ("a", "d"): label}
    chains, sizes = order_columns(nodes, edges).chains, order_columns(nodes, edges).sizes
    column = {i: c for c, items in enumerate(order_columns(nodes, edges).columns) for i in items}
    lane = next(lane for lane in chains["a", "d"][1:-1] if sizes[lane].width)
    assert column["c"] < column[lane] < column["d"]
