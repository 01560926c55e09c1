"""Genotypes are numbered once each, and keys name them."""

from __future__ import annotations

import pytest

from enumerated import every
from nas.benchmark.enumeration import Enumeration
from nas.errors import SpaceError
from nas.genotype.decision import NONE, Decision

OPERATIONS = ("conv", "pool", NONE)
NESTED = [
    Decision("outer", "operation", ("x", "y", "z")),
    Decision("in", "operation", OPERATIONS, conditions=(("outer", "x"), ("outer", "y"))),
    Decision("only", "operation", ("one",), conditions=(("outer", "x"),)),
    Decision("width", "width", (8, 16, 64)),
]
IN_EDGES = [
    Decision("node", "inputs", (0, 1, 2), 2, pruned=True),
    *(Decision(f"node<-{s}", "operation", OPERATIONS, conditions=(("node", s),)) for s in range(3)),
]
SPACES = {"nested": NESTED, "in-edges": IN_EDGES, "both": [*NESTED, *IN_EDGES], "empty": []}


def enumeration(name: str, limit: int = 1000) -> Enumeration:
    return Enumeration({decision.label: decision for decision in SPACES[name]}, limit)


@pytest.mark.parametrize("name", SPACES)
def test_every_genotype_has_a_number_and_a_key(name: str) -> None:
    found = enumeration(name)
    choices = [found.choices(row) for row in range(len(found))]
    assert choices == list(every({decision.label: decision for decision in SPACES[name]}))
    assert found.complete
    assert [found.row(each) for each in choices] == list(range(len(found)))
    keys = [found.key(row) for row in range(len(found))]
    assert len(set(keys)) == len(keys)
    assert [found.row_of_key(key) for key in keys] == list(range(len(found)))


def test_keys() -> None:
    nested = enumeration("nested")
    assert nested.key(nested.row({"outer": "y", "in": NONE, "width": 64})) == "y:none:64"
    assert nested.key(nested.row({"outer": "z", "width": 8})) == "z:-:8"
    assert nested.choices(nested.row_of_key("0:1:16")) == {"outer": "x", "in": "pool", "only": "one", "width": 16}
    edges = enumeration("in-edges")
    assert edges.choices(edges.row_of_key("0.2:1:-:0")) == {"node": (0, 2), "node<-0": "pool", "node<-2": "conv"}


def test_keys_of_single_characters_need_no_separator() -> None:
    decisions = {label: Decision(label, "operation", OPERATIONS) for label in "abc"}
    found = Enumeration(decisions, 100)
    assert found.row_of_key("201") == found.row({"a": NONE, "b": "conv", "c": "pool"})
    assert Enumeration({"a": decisions["a"]}, 100).row_of_key("pool") == 1
    assert Enumeration({"a": Decision("a", "operation", ("b", "c"))}, 100).row_of_key("c") == 1


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("x:conv", "must have 3 parts, as x:conv:8, got 2"),
        ("", "must have 3 parts"),
        ("x:conv:9", "'width' must be one of 8, 16, 64, got '9'"),
        ("x:conv:0", "'width' must be one of 8, 16, 64, got '0'"),  # widths have no positions
        ("w:conv:8", "'outer' must be one of x, y, z, got 'w'"),
        ("3:conv:8", "got '3'"),
        ("z:conv:8", "must be one of the 21 of the table"),  # absent in z
        ("x:-:8", "must be one of the 21"),
    ],
)
def test_other_keys_are_errors(key: str, message: str) -> None:
    with pytest.raises(SpaceError) as error:
        enumeration("nested").row_of_key(key)
    assert message in str(error.value)


def test_choices_of_another_space_are_an_error() -> None:
    with pytest.raises(SpaceError, match="one of the 21 of the table, got outer=w"):
        enumeration("nested").row({"outer": "w"})


def test_a_large_space_is_enumerated_up_to_the_limit() -> None:
    decisions = {str(i): Decision(str(i), "width", tuple(range(1, 9))) for i in range(30)}
    found = Enumeration(decisions, 50)
    assert len(found) == 50
    assert not found.complete
