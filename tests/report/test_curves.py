from __future__ import annotations

from pathlib import Path

import pytest

from nas.report.curves import SHOWN, evaluations, indicators, levels
from nas.report.recorded import read_run


def test_levels_with_their_losses_in_numbers(folder: Path) -> None:
    lower, upper = levels(read_run(folder))
    assert lower[:1] + lower[2:] == ("lower", 40, 1.0, 0.025, 0.025, 40)
    assert upper[:1] + upper[2:] == ("upper", 40, 0.501, 0.54, 0.501, 1)
    assert [plot.title for plot in lower.plots] == ["loss", "norm"]
    assert [line.faint for line in lower.plots[0].lines] == [True, False], "the running mean is in front"


def test_levels_go_from_the_lowest_to_the_highest(searched: Path) -> None:
    run = read_run(searched)
    run.records.sort(key=lambda record: record.get("level") != "upper")
    assert [level.name for level in levels(run)] == ["lower", "upper"]


def test_evaluations(folder: Path) -> None:
    table = evaluations(read_run(folder))
    assert table is not None
    assert table.columns == ["step", "psnr_y", "protocol"]
    assert table.rows[-1] == [40, 34.0, "light25 | Y"]
    lines = "".join(f'{{"step":{i},"kind":"evaluate","psnr":{i},"statement":"on Y"}}\n' for i in range(100))
    (folder / "metrics.jsonl").write_text(lines)
    table = evaluations(read_run(folder))
    assert table is not None
    assert [row[0] for row in table.rows] == list(range(100 - SHOWN, 100))
    assert (table.statements, table.total) == (["on Y"], 100)
    (folder / "metrics.jsonl").write_text("")
    assert evaluations(read_run(folder)) is None


def test_indicators_and_their_advice(searched: Path, retrained: Path) -> None:
    found = indicators(read_run(searched))
    assert found is not None
    assert [plot.title for plot in found.plots] == [
        "Validation psnr of the supernet",
        "Entropy of the mixing weights",
        "Margin of the decisions",
        "Undecided decisions",
        "Skip connections",
        "Arch gradient",
        "Largest eigenvalue",
    ]
    assert (found.best, found.cells, found.sharp) == (40, True, True)
    assert [text[:26] for text in found.advice] == ["cell 'cell' has collapsed:"]
    assert found.plots[1].lines[0].values == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert indicators(read_run(retrained)) is None
