from __future__ import annotations

import re
from pathlib import Path

import pytest

from nas.errors import InvalidFileError
from nas.report.markdown import write_report


def rows(report: str, heading: str) -> list[list[str]]:
    """The cells of the first table after a heading, without its header."""
    body = report.split(heading, 1)[1]
    lines = re.findall(r"^\| .* \|$", body.split("\n## ", 1)[0], re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_the_report_of_a_finished_run(folder: Path) -> None:
    (folder / "genotype.svg").write_text("<svg/>")
    (folder / "before after.png").write_bytes(b"")
    assert write_report(folder) == folder / "report.md"
    report = (folder / "report.md").read_text()
    assert report.startswith("# Run first search\n")
    summary = dict(rows(report, "# Run"))
    assert summary["Steps"] == "40"
    assert summary["Seed"] == "3"
    assert summary["Options"] == "channels=8, cells=2"
    assert summary["Genotype"] == "[genotype.yaml](genotype.yaml)"
    assert rows(report, "## Genotype") == [
        ["`alignment`", "ofm", "0.9", "tgm", "0.1", "0.8"],
        ["`dna/0`", "dense5", "0.3", "none", "0.45", "0.05"],
        ["`cell/2`", "0, 1", "–", "–", "–", "1"],
    ]
    assert "The least decided is `dna/0`, by a margin of 0.05." in report
    assert rows(report, "## Losses") == [
        ["lower", "1", "0.025", "0.025", "40"],
        ["upper", "0.501", "0.54", "0.501", "1"],
    ]
    assert rows(report, "## Evaluation")[-1] == ["40", "34", r"light25 \| Y"]
    links = re.findall(r"!\[[^]]*\]\(<(.*?)>\)", report)
    assert links == ["before after.png", "genotype.svg", "losses.svg", "mixing.svg"]
    assert all((folder / name).exists() for name in links)
    assert "final genotype yet" not in report


def test_the_report_is_made_of_the_files_alone(folder: Path) -> None:
    write_report(folder)
    first = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    write_report(str(folder))
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == first


def test_a_run_that_goes_on_is_told_by_its_latest_genotype(folder: Path) -> None:
    (folder / "genotype.yaml").unlink()
    report = write_report(folder).read_text()
    assert "This run has no final genotype yet." in report
    assert dict(rows(report, "# Run"))["Genotype"] == "[genotypes/step-000040.yaml](genotypes/step-000040.yaml)"
    assert rows(report, "## Genotype") == [["`alignment`", "tgm", "0.1", "ofm", "0.9", "–"]]


def test_a_run_that_has_only_begun(folder: Path) -> None:
    (folder / "genotype.yaml").unlink()
    for path in (folder / "genotypes").iterdir():
        path.unlink()
    (folder / "metrics.jsonl").write_text("")
    report = write_report(folder).read_text()
    assert dict(rows(report, "# Run"))["Steps"] == "0"
    assert "##" not in report


def test_many_evaluations_are_cut_to_the_last(folder: Path) -> None:
    lines = "".join(f'{{"step":{step},"kind":"evaluate","psnr":30}}\n' for step in range(100))
    (folder / "metrics.jsonl").write_text(lines)
    report = write_report(folder).read_text()
    assert "The last 20 of 100." in report
    assert [row[0] for row in rows(report, "## Evaluation")] == [str(step) for step in range(80, 100)]


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match=r"versions\.yaml: cannot be read"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_report_says_once_how_scores_were_taken(folder: Path) -> None:
    lines = "".join(f'{{"kind":"evaluate","psnr":{psnr},"statement":"PSNR on Y"}}\n' for psnr in (30, 31))
    (folder / "metrics.jsonl").write_text(lines)
    report = write_report(folder).read_text()
    assert rows(report, "## Evaluation") == [["30"], ["31"]]
    assert report.count("PSNR on Y") == 1
