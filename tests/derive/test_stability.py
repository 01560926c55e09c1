"""Which decisions count as undecided, on series whose answer is plain."""

from __future__ import annotations

import statistics

import pytest

from nas.derive.stability import judged, undecided
from nas.genotype.file import Genotype, Provenance


def epochs(choices: str, margins: list[float]) -> list[Genotype]:
    """Genotypes of a decision `a`, a letter each, and of another that is made from the beginning."""
    return [
        Genotype(space="s", choices={"a": choice, "b": "x"}, provenance=Provenance(margins={"a": margin, "b": 0.5}))
        for choice, margin in zip(choices, margins, strict=True)
    ]


@pytest.mark.parametrize(
    ("choices", "margins", "expected"),
    [
        ("xxxxxxxx", [0.1] * 8, False),
        ("yyyyyyxx", [0.1] * 8, True),  # the last quarter are two epochs, and the leader was another before them
        ("yyyyyxxx", [0.1] * 8, False),
        ("y" * 30 + "x" * 10, [0.1] * 40, True),  # of forty they are ten
        ("y" * 29 + "x" * 11, [0.1] * 40, False),
        ("xxxxxxyx", [0.1] * 8, True),
        ("xxxxxxxx", [0.9] * 5 + [0.1, 0.3, 0.1], True),  # standard deviation .115
        ("xxxxxxxx", [0.9] * 5 + [0.1, 0.3, 0.2], False),
        ("xxxxxxxx", [0.0] * 8, True),  # a tie
        ("xxx", [0.1, 0.2, 0.3], False),
        ("xx", [0.3, 0.3], True),  # too few to tell
    ],
)
def test_the_definition(choices: str, margins: list[float], expected: bool) -> None:
    found = undecided(epochs(choices, margins))
    assert found == (("a", "b") if len(choices) < 3 else ("a",) * expected)


def test_a_margin_must_exceed_its_standard_deviation() -> None:
    early = [0.01, 0.05]
    for last in (0.0, 0.01, 0.02, 0.03, 0.04):
        expected = last <= statistics.stdev([*early, last])
        assert undecided(epochs("xxx", [*early, last])) == ("a",) * expected


def test_a_decision_that_did_not_exist_before_is_undecided() -> None:
    series = epochs("xxxx", [0.5] * 4)
    del series[-2].choices["a"]
    assert undecided(series) == ("a",)


def test_a_margin_that_is_not_known_counts_as_0() -> None:
    series = epochs("xxxx", [0.5, 0.5, 0.3, 0.35])
    assert series[1].provenance is not None
    del series[1].provenance.margins["a"]
    assert statistics.stdev([0, 0.3, 0.35]) < 0.35 < statistics.stdev([1, 0.3, 0.35])
    assert undecided(series) == ()


def test_what_the_genotype_says_of_it() -> None:
    *before, last = epochs("yyyyxxxx", [0.0] * 8)
    found = judged(last, before)
    assert found.provenance == Provenance(margins={"a": 0.0, "b": 0.5}, undecided=("a",))
    assert Genotype.parse(found.dump()) == found
    assert judged(last, []).provenance == Provenance(margins={"a": 0.0, "b": 0.5}, undecided=("a", "b"))
    assert "undecided" not in judged(epochs("x", [0.5])[0], epochs("xx", [0.4, 0.5])).dump()
