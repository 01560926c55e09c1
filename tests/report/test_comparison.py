from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nas.draw.style import MARK
from nas.errors import ConfigError, InvalidFileError
from nas.genotype.file import Genotype
from nas.report.comparison import choices, curves, groups, write_comparison
from nas.report.recorded import Recorded, read_run


@pytest.fixture(scope="module")
def runs(make_search: Callable[..., Path]) -> list[Recorded]:
    """Two seeds of one configuration, and one of another."""
    made = [make_search("a"), make_search("b", seed=1), make_search("c", "task.crop=48")]
    return [read_run(folder) for folder in made]


def test_runs_that_differ_in_their_seed_alone_are_a_group(runs: list[Recorded]) -> None:
    found = groups(runs)
    assert [(group.name, group.runs, group.settings) for group in found] == [
        ("A", runs[:2], {"task.crop": "64"}),
        ("B", runs[2:], {"task.crop": "48"}),
    ]
    assert groups(runs[:2])[0].settings == {}


def test_curves_are_means_with_a_standard_deviation_to_both_sides(runs: list[Recorded]) -> None:
    plots = {each.title: each for each in curves(groups(runs))}
    assert list(plots) == ["lower: loss", "upper: loss", "entropy", "margin"]
    lower = plots["lower: loss"]
    seeds = [each.values for each in curves(groups(runs[:1]))[0].lines]
    means = next(line for line in lower.lines if line.name == "A")
    assert means.values == pytest.approx([value + 0.005 for value in seeds[0] if value is not None])
    (band,) = lower.bands
    ys = [float(y) for y in re.findall(r"[ML]\S+ (\S+?)(?=[MLZ])", band.path)]
    low, high = lower.up[0], lower.up[-1]
    power = math.log(float(high.text) / float(low.text)) / (high.place - low.place)  # of the logarithmic axis
    middle, reach = (1 / 59 + 1 / 60) / 2 + 0.005, 0.01 / math.sqrt(2)  # of 0 and 0.01, after the running mean
    wide = (ys[len(ys) // 2] - ys[len(ys) // 2 - 1]) / 1000 * power
    assert wide == pytest.approx(math.log((middle + reach) / (middle - reach)), rel=0.01)


def test_choices_that_differ_are_marked(runs: list[Recorded]) -> None:
    rows = choices(runs)
    genotypes = [run.genotype for run in runs]
    assert all(genotypes)
    for row in rows:
        assert row.chosen == [str(genotype.choices[row.label]) for genotype in genotypes if genotype]
        assert row.usual == row.chosen[0] == row.chosen[2], "the first and the third have the same seed"
        assert row.differs == (row.chosen[1] != row.chosen[0])
    assert any(row.differs for row in rows)


def test_a_decision_that_only_some_have(runs: list[Recorded], folder: Path) -> None:
    rows = {row.label: row.chosen for row in choices([runs[0], read_run(folder)])}
    assert rows["dna/0"] == ["", "dense5"]
    assert rows["cell/2"] == [str(Genotype.load(runs[0].folder / "genotype.yaml").choices["cell/2"]), "0, 1"]


def test_the_in_edges_of_a_node_follow_it(runs: list[Recorded]) -> None:
    first = Genotype(space="s", choices={"c/2": (0,), "c/2<-0": "a", "c/3": (1,), "c/3<-1": "b"})
    second = Genotype(space="s", choices={"c/2": (1,), "c/2<-1": "a", "c/3": (0,), "c/3<-0": "b"})
    rows = choices([replace(runs[0], final=genotype) for genotype in (first, second)])
    assert [row.label for row in rows] == ["c/2", "c/2<-0", "c/2<-1", "c/3", "c/3<-0", "c/3<-1"]


def test_pictures_mark_what_the_first_run_has_otherwise(runs: list[Recorded], folder: Path, tmp_path: Path) -> None:
    """The third run has the genotype of the first; the fourth is of a space that is not known."""
    first, second = (run.genotype for run in runs[:2])
    assert first is not None
    assert second is not None
    page = write_comparison([*(run.folder for run in runs), folder], tmp_path / "comparison.html").path.read_text()
    drawn = page.split('<div class="side-by-side">')[1].split("<h3>")[1:]
    assert len(drawn) == 3
    notes = [re.findall(r">was (\w+)</text>", part) for part in drawn]
    changed = [str(choice) for label, choice in first.choices.items() if second.choices.get(label) != choice]
    assert sorted(notes[1]) == sorted(changed)
    assert notes[0] == notes[2] == []
    assert [MARK in part for part in drawn] == [False, True, False]


def test_the_page(runs: list[Recorded], retrained: Path, tmp_path: Path) -> None:
    out = tmp_path / "comparison.html"
    assert write_comparison([*(run.folder for run in runs), retrained], out).path == out
    text = out.read_text()
    assert len(text) < 3_000_000
    assert "<h1>4 runs</h1>" in text
    assert "class=differs" in text
    for run in runs:
        assert text.count(run.name) >= 3
    assert re.search(r"<th scope=\"row\">A</th><td>3</td><td>36\.25</td>", text), (
        "the retraining is of the same settings"
    )
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) == {"http://www.w3.org/2000/svg"}


def test_what_cannot_be_compared(runs: list[Recorded], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="twice"):
        write_comparison([runs[0].folder, runs[0].folder], tmp_path / "out.html")
    with pytest.raises(InvalidFileError, match="folder of a run"):
        write_comparison([runs[0].folder, tmp_path], tmp_path / "out.html")
    assert list(tmp_path.iterdir()) == []
