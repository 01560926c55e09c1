from __future__ import annotations

from pathlib import Path

import pytest

from nas.report.curves import SHOWN, evaluations, indicators, levels, logits, observers, validation
from nas.report.page import write_report
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


def test_the_validation_of_a_retraining(retrained: Path, folder: Path) -> None:
    found = validation(read_run(retrained))
    assert found is not None
    assert (found.best, [plot.title for plot in found.plots]) == (20, ["Validation psnr of the network"])
    (line,) = found.plots[0].lines
    assert (line.steps, line.values) == ([10, 20, 30], [25.0, 35.0, 25.0])
    (folder / "metrics.jsonl").write_text("")
    assert validation(read_run(folder)) is None


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


def test_values_of_other_observers_are_drawn(folder: Path) -> None:
    values = ((10, 1.0, "null"), (20, 3.0, "null"))
    lines = [f'{{"step":{s},"kind":"observer","observer":"mine","norm":{a},"lost":{b}}}\n' for s, a, b in values]
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines([*lines, '{"step":20,"kind":"observer","observer":"logits","loss/alignment":1.0}\n'])
    (plot,) = observers(read_run(folder))["mine"]
    assert plot.title == "norm"
    assert (plot.lines[0].steps, plot.lines[0].values) == ([10, 20], [1.0, 3.0])
    page = write_report(folder).path.read_text()
    assert page.count('<section id="observers"') == page.count("<h4>mine</h4>") == 1
    assert '<a href="#observers">' in page
    assert page.count("What moves the logits") == 1


def test_without_other_observers_there_is_no_section(searched: Path, tmp_path: Path) -> None:
    assert observers(read_run(searched)) == {}
    assert '<section id="observers"' not in write_report(searched, tmp_path / "page.html").path.read_text()


def test_what_moves_the_logits(folder: Path) -> None:
    def line(step: int, count: int) -> str:
        parts = [("loss", i + step, i) for i in range(count)] + [("decay", 50, i) for i in range(count)]
        values = [f'"{part}/cell/{i}":{value}' for part, value, i in parts]
        return f'{{"step":{step},"kind":"observer","observer":"logits",{",".join(values)}}}\n'

    (folder / "metrics.jsonl").write_text(line(10, 2) + line(20, 2))
    run = read_run(folder)
    plots = logits(run)
    assert [plot.title for plot in plots] == ["cell/0", "cell/1"]
    assert [(each.name, each.values) for each in plots[1].lines] == [("loss", [11, 21]), ("decay", [50, 50])]
    (folder / "metrics.jsonl").write_text(line(10, 9))
    (mean,) = logits(read_run(folder))
    assert [each.values for each in mean.lines] == [[14], [50]]


def test_decay_that_decides_is_advice_in_the_report(searched: Path) -> None:
    run = read_run(searched)
    run.records.append({"step": 40, "kind": "observer", "observer": "logits", "loss/a": 1.0, "decay/a": 2.0})
    found = indicators(run)
    assert found is not None
    assert "weight decay outweighs the loss on 1 of 1" in found.advice[-1]
