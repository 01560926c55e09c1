"""Two genotypes, field by field."""

from __future__ import annotations

import msgspec

import toy
from nas.compare.changes import Change, diff
from nas.genotype.file import Genotype, Provenance

A = Genotype(space="toy", options={"channels": 4}, choices=toy.DEAREST)


def test_equal_genotypes_differ_in_nothing() -> None:
    assert diff(A, A) == []
    assert diff(A, msgspec.structs.replace(A, options={})) == []  # 4 is the default
    assert diff(A, msgspec.structs.replace(A, provenance=Provenance(seed=1))) == []
    assert diff(A, msgspec.structs.replace(A, choices=dict(reversed(A.choices.items())))) == []


def test_fields_that_differ() -> None:
    b = Genotype(space="toy", options={"channels": 6}, choices={"first": "conv", "third": (0, 1)})
    assert diff(A, b) == [
        Change("options.channels", "4", "6"),
        Change("choices.second", "linear", None),
        Change("choices.third", None, "0, 1"),
    ]


def test_other_spaces_can_be_compared() -> None:
    changes = {change.field: change for change in diff(A, Genotype.load("tmics-light"))}
    assert changes["space"] == Change("space", "toy", "tmics")
    assert changes["choices.first"] == Change("choices.first", "conv", None)
    assert changes["choices.cell/1"] == Change("choices.cell/1", None, "residual_5x5")
