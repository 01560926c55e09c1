"""Runs on two ranks: rank 0 alone writes, both stop at one step, and another number of ranks continues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from nas.front.running import retrain, search
from nas.run.folder import read_records, read_versions
from nas.space.definition import find_space
from ranked import on_ranks
from ranked_runs import CONFIG, GENOTYPE, assert_equal_to_rounding, runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(3):
        Image.new("L", (8, 8), 60 * number).save(pictures / f"{number}.png")
    find_space("digits").sample(torch.Generator()).save(pictures / "genotype.yaml")
    return on_ranks(runs, folder, pictures)


def test_a_search_on_two_ranks_equals_one_on_one(found: list[dict[str, Any]], folder: Path, tmp_path: Path) -> None:
    search(CONFIG, out=tmp_path / "search", progress=False)
    assert_equal_to_rounding(folder / "search", tmp_path / "search")
    assert read_versions(folder / "search").ranks == 2
    names = [{path.name for path in each.rglob("*")} for each in (folder / "search", tmp_path / "search")]
    assert names[0] == names[1]


def test_one_rank_continues_what_two_began(found: list[dict[str, Any]], folder: Path) -> None:
    steps = [each["step"] for each in read_records(folder / "stopped") if each["kind"] == "train"]
    assert set(steps) == {1}
    with pytest.warns(UserWarning, match=r"ranks \(was 2, now 1\)"):
        search(CONFIG, out=folder / "stopped", progress=False, resume=True)
    assert_equal_to_rounding(folder / "stopped", folder / "search")


def test_a_retraining_on_two_ranks_equals_one_on_one(found: list[dict[str, Any]], folder: Path, tmp_path: Path) -> None:
    scores = retrain(GENOTYPE, CONFIG, out=tmp_path / "network", progress=False).scores
    for each in found:
        assert each["scores"] == pytest.approx(scores, rel=1e-4)
    assert_equal_to_rounding(folder / "network", tmp_path / "network")
    assert (folder / "network" / "weights.safetensors").is_file()


def test_rank_0_alone_writes(found: list[dict[str, Any]]) -> None:
    assert len(found[0]["written"]) > 20
    assert found[1]["written"] == []


def test_all_ranks_raise_the_error_of_rank_0(found: list[dict[str, Any]]) -> None:
    assert "not empty; continue the run in it with --resume" in found[0]["error"]
    assert found[0]["error"] == found[1]["error"]


def test_scores_and_predictions_are_those_of_one_rank(found: list[dict[str, Any]], folder: Path) -> None:
    for each in found:
        assert each["scores of digits"] == each["scores of digits on one rank"]
    table = (folder / "ranks.csv").read_text()
    assert len(table.splitlines()) == 4
    assert table == (folder / "one-0.csv").read_text()
