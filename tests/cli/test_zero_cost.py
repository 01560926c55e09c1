"""`nas score`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import toy
from nas.genotype.file import Genotype
from nas.space.definition import find_space

Nas = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture
def genotypes(tmp_path: Path) -> list[Path]:
    """The cheapest and the dearest genotype of the toy space."""
    options = find_space("toy").options(**toy.config().options)
    paths = []
    for name, choices in (("cheapest", toy.CHEAPEST), ("dearest", toy.DEAREST)):
        paths.append(tmp_path / f"{name}.yaml")
        Genotype(space="toy", choices=choices, options=options).save(paths[-1])
    return paths


def test_each_genotype_has_a_row_and_each_score_a_column(nas: Nas, genotypes: list[Path]) -> None:
    result = nas("score", *genotypes, "--config", toy.CONFIG, "--by", "params", "--by", "{name: naswot}")
    assert result.code == 0, result.err
    assert re.search(r"^genotype +params +naswot$", result.out, re.MULTILINE)
    for path in genotypes:
        network = find_space("toy").derived(Genotype.load(path))
        count = sum(parameter.numel() for parameter in network.parameters())
        assert re.search(rf"^{re.escape(str(path))} +{count} ", result.out, re.MULTILINE), result.out


def test_all_scores_that_train_nothing_are_the_default(nas: Nas, genotypes: list[Path]) -> None:
    result = nas("score", genotypes[0], "--config", toy.CONFIG)
    head = re.search(r"^genotype .*$", result.out, re.MULTILINE)
    assert head is not None
    names = {"params", "flops", "grad_norm", "synflow", "naswot", "jacob_cov"}
    assert names <= {*head[0].split()}
    assert not {"retraining", "one_shot"} & {*head[0].split()}


def test_a_score_that_has_not_what_it_needs_is_one_line(refused: Refused, genotypes: list[Path]) -> None:
    config = ("--config", toy.CONFIG)
    assert "unknown score 'naswott' (did you mean 'naswot'?)" in refused("score", genotypes[0], *config, "--by=naswott")
    assert "'one_shot' needs the folder" in refused("score", genotypes[0], *config, "--by=one_shot")
    assert "'retraining' needs 'retrained'" in refused("score", genotypes[0], *config, "--by=retraining")
