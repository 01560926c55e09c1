"""`nas tune` on the toy space."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import toy
from nas.genotype.file import Genotype

SMALL = ["retrain.stages.backbone.steps=2", "retrain.stages.averaging.steps=1"]
RATE = "retrain.stages.backbone.level.optimizer.lr"
GENOTYPE = Genotype(space="toy", choices=toy.CHEAPEST)


def test_the_command(nas: Callable[..., Any], tmp_path: Path) -> None:
    command = ["tune", str(toy.CONFIG), *SMALL, f"{RATE}=choice(0.01, 0.02)", "--trials", "2", "--out"]
    genotype = tmp_path / "g.yaml"
    GENOTYPE.save(genotype)
    result = nas(*command, tmp_path / "my out", "--quiet", "--genotype", genotype)
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert re.fullmatch(r"trial 0: complete, score -0\.\d+", lines[0])
    assert re.search(rf"^trial +state +score +{re.escape(RATE)}$", result.out, re.M)
    assert re.fullmatch(rf"best: trial \d, score -0\.\d+: {re.escape(RATE)}=0\.0[12]", lines[-2])
    assert lines[-1] == f"dashboard: optuna-dashboard '{tmp_path}/my out/study.log'"
    refused = nas("tune", str(toy.CONFIG), "--trials", "2", "--out", tmp_path / "x")
    assert refused.code == 2
    assert refused.err.startswith("nas: nothing is tuned")
