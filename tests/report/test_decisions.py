from __future__ import annotations

from pathlib import Path

from nas.report.decisions import Row, decisions
from nas.report.recorded import read_run


def test_what_was_chosen_and_by_how_much(folder: Path) -> None:
    run = read_run(folder)
    assert run.genotype is not None
    assert decisions(run.genotype, run.mixing) == [
        Row("alignment", "ofm", 0.9, "tgm", 1 - 0.9, 0.8),
        Row("dna/0", "dense5", 0.3, "none", 0.45, 0.05),
        Row("cell/2", "0, 1", None, None, None, 1.0),
    ]


def test_without_mixing_weights_and_margins(folder: Path) -> None:
    early = read_run(folder).genotypes[10]
    assert decisions(early, {}) == [Row("alignment", "tgm", None, None, None, None)]
