from __future__ import annotations

from pathlib import Path

from nas.genotype.file import Genotype, Provenance
from nas.report.decisions import EdgeRow, Row, decision_rows, edge_rows
from nas.report.recorded import read_run


def test_what_was_chosen_and_by_how_much(folder: Path) -> None:
    run = read_run(folder)
    assert run.genotype is not None
    assert decision_rows(run.genotype, run.mixing) == [
        Row("alignment", "ofm", 0.9, "tgm", 1 - 0.9, 0.8),
        Row("dna/0", "dense5", 0.3, "none", 0.45, 0.05),
        Row("cell/2", "0, 1", None, None, None, 1.0),
    ]


def test_what_is_undecided_is_marked_and_what_had_no_alternative_left_out(folder: Path) -> None:
    provenance = Provenance(margins={"alignment": 0.8, "dna/0": 0.05}, undecided=("dna/0",))
    genotype = Genotype(space="s", choices={"alignment": "ofm", "dna/0": "x", "n": (0, 1)}, provenance=provenance)
    assert [(row.label, row.undecided) for row in decision_rows(genotype, {})] == [
        ("alignment", False),
        ("dna/0", True),
    ]


def test_without_mixing_weights_and_margins(folder: Path) -> None:
    early = read_run(folder).genotypes[10]
    assert decision_rows(early, {}) == [Row("alignment", "tgm", None, None, None, None)]


def test_an_in_edge_has_its_factor_and_weight_of_the_last_epoch() -> None:
    genotype = Genotype(space="s", choices={"cell/2": (1,), "cell/2<-1": "conv"})
    early, late = ({"0": [0.5, 0.5], "1": [0.5, 0.5]}, {"0": [0.25, 0.5], "1": [0.75, 0.5]})
    records = [{"kind": "edges", "step": step, "edges": {"cell/2": each}} for step, each in enumerate((early, late))]
    assert edge_rows(genotype, [{"kind": "mixing"}, *records]) == [
        EdgeRow("cell/2", "0", False, 0.25, 0.5, 0.125),
        EdgeRow("cell/2", "1", True, 0.75, 0.5, 0.375),
    ]
    assert edge_rows(genotype, []) == []
