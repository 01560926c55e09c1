"""A small finished search, for every report of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.genotype import Genotype, Provenance
from nas.run import Run

CANDIDATES = {"alignment": ["ofm", "tgm"], "dna/0": ["res3", "dense5", "none"], "cell/2<-0": [4, 8]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a run of 40 steps on three decisions, two levels, and an evaluation every tenth step."""
    with Run.create(tmp_path / "first search", "seed: 3\n", seed=3) as run:
        run.record("decisions", decisions=CANDIDATES)
        for step in range(1, 41):
            run.record("train", step=step, level="lower", loss=1.0 / step, norm=float("nan") if step == 7 else 2.0)
            run.record("train", step=step, level="upper", loss=0.5 + 0.001 * step)
            if step % 10 == 0:
                lead = 0.5 + step / 100
                weights = {"alignment": [lead, 1 - lead], "dna/0": [0.25, 0.3, 0.45], "cell/2<-0": [0.4, 0.6]}
                run.record("mixing", step=step, weights=weights)
                run.record("evaluate", step=step, psnr_y=30.0 + step / 10, protocol="light25 | Y")
                early = Genotype(space="tmics", choices={"alignment": "tgm"})
                run.save_genotype(early, step)
        margins = {"alignment": 0.8, "dna/0": 0.05, "cell/2": 1.0}
        run.save_genotype(
            Genotype(
                space="tmics",
                choices={"alignment": "ofm", "dna/0": "dense5", "cell/2": (0, 1)},
                options={"channels": 8, "cells": 2},
                provenance=Provenance(margins=margins),
            )
        )
    return run.path
