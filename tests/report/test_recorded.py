from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nas.errors import InvalidFileError
from nas.report.recorded import read_run


def test_a_search(searched: Path) -> None:
    run = read_run(searched)
    assert (run.steps, run.search, run.scores) == (60, None, {})
    assert run.name == f"{searched.parent.name}/search"
    assert list(run.genotypes) == [10, 20, 30, 40, 50, 60]
    assert run.genotype == run.final == run.genotypes[60]
    assert [epoch["step"] for epoch in run.epochs] == [10, 20, 30, 40, 50, 60]
    assert run.config is not None
    assert run.config.search.steps == 60
    assert list(run.losses) == ["lower", "upper"]


def test_a_retraining_names_its_search(retrained: Path, searched: Path, tmp_path: Path) -> None:
    run = read_run(retrained)
    assert run.scores == {"psnr": 36.25, "ssim": 0.975}
    assert run.mixing == {}
    assert run.search is not None
    assert run.search.resolve() == searched.resolve()
    shutil.copytree(retrained, tmp_path / "moved" / "network")
    assert read_run(tmp_path / "moved" / "network").search is None


def test_a_run_that_goes_on_has_the_genotype_of_its_latest_epoch(folder: Path) -> None:
    (folder / "genotype.yaml").unlink()
    run = read_run(folder)
    assert run.final is None
    assert run.genotype == run.genotypes[40]
    assert run.config is None, "of a space that is not known here"


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match="folder of a run"):
        read_run(tmp_path)
